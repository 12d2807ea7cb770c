import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from selfdistill.data.augment import Crop, Normalize, shift_and_flip
from selfdistill.data.randomness import draw, hash_key


def literal(image: Tensor, top: int, left: int, flip: bool, pad: int) -> Tensor:
    cut = tv.crop(tv.pad(image, [pad] * 4), top, left, *image.shape[-2:])
    return tv.hflip(cut) if flip else cut


@pytest.mark.parametrize("shape", [(40, 3, 8, 8), (40, 1, 6, 9)])
def test_against_torchvision_image_by_image(shape):
    images = torch.randint(1, 256, shape, dtype=torch.uint8)
    top, left = torch.randint(0, 5, (2, shape[0]))
    top[:2], left[:2] = torch.tensor([0, 4]), torch.tensor([4, 0])
    flip = torch.randint(0, 2, (shape[0],)) == 1
    ours = shift_and_flip(images, top, left, flip, pad=2)
    theirs = [literal(i, int(t), int(le), bool(f), 2) for i, t, le, f in zip(images, top, left, flip, strict=True)]
    assert ours.dtype == torch.uint8
    assert torch.equal(ours, torch.stack(theirs))


def test_crop_draws_offsets_and_flips_from_seed_epoch_index_and_view():
    images = torch.randint(1, 256, (6, 3, 8, 8), dtype=torch.uint8)
    index = torch.tensor([5, 17, 3, 999, 0, 4])
    ours = Crop(pad=1, flip=True, seed=11)(images, index, epoch=2, view=1)
    top, left, flip = (draw(hash_key(11, 2, 1, stream), index, below) for stream, below in ((0, 3), (1, 3), (2, 2)))
    for at in range(6):
        assert torch.equal(ours[at], literal(images[at], int(top[at]), int(left[at]), bool(flip[at]), 1))
    assert len({(int(t), int(le)) for t, le in zip(top, left, strict=True)}) > 1


def test_every_offset_and_flip_occurs_equally_often():
    """One bright pixel tells where the window was: 5 x 5 offsets; chi-square of 24 degrees of freedom."""
    images = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    images[0, 0, 4, 4] = 255
    index = torch.arange(20_000)
    moved = Crop(pad=2, flip=True, seed=0)(images.expand(len(index), -1, -1, -1), index, epoch=0, view=0)
    counts = moved.long().sum(0)[0] // 255
    assert counts[2:7, 2:7].sum() == len(index)
    expected = len(index) / 25
    assert ((counts[2:7, 2:7] - expected) ** 2 / expected).sum() < 24 + 5 * 7
    flipped = draw(hash_key(0, 0, 0, 2), index, 2).double().mean()
    assert abs(flipped - 0.5) < 5 * 0.5 / len(index) ** 0.5


def test_none_leaves_the_images_and_crop_alone_never_mirrors():
    images = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4).expand(64, -1, -1, -1)
    index = torch.arange(64)
    assert torch.equal(Crop(pad=0, flip=False, seed=0)(images, index, 0, 0), images)
    rising = Crop(pad=1, flip=False, seed=0)(images, index, 0, 0)[:, 0, 1, 1:3].int()
    assert (rising[:, 1] > rising[:, 0]).all()
    mirrored = Crop(pad=0, flip=True, seed=0)(images, index, 0, 0)[:, 0, 1, 1:3].int()
    assert 0 < (mirrored[:, 1] > mirrored[:, 0]).sum() < 64


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalize_is_to_tensor_and_normalize(channels_last):
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    ours = Normalize(mean, std, device="cpu", channels_last=channels_last)(images)
    theirs = tv.normalize(tv.to_dtype(images, torch.float32, scale=True), list(mean), list(std))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert ours.is_contiguous(memory_format=layout)


@pytest.mark.gpu
def test_the_gpu_draws_what_the_cpu_draws():
    images = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8)
    crop, index = Crop(pad=4, flip=True, seed=3), torch.arange(50) * 997
    on_gpu = crop(images.cuda(), index.cuda(), epoch=1, view=0)
    assert torch.equal(on_gpu.cpu(), crop(images, index, epoch=1, view=0))
