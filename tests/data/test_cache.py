"""Files that are decoded once and kept: the same pixels, whole or not at all, and anew when a file changes."""

import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from selfdistill.data import Split, TrainLoader, cache, eval_batches, files, load_data
from selfdistill.data.cache import cached_images, decoded_once, with_cache
from selfdistill.data.decode import UnreadableImageError, read_rgb, sides_for
from selfdistill.data.randomness import hash_key
from selfdistill.data.sets import Resizing
from selfdistill.method import Needs

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")

AUGMENTS = ("none", "crop", "crop_flip", "resized_crop_flip")
FORK = multiprocessing.get_context("fork")
NEEDS = Needs(views=2, pair="any")
S, MARGIN = 70, 80  # 70 * 256/224


@pytest.fixture
def data(photos):
    """The photographs of 90 x 70, one turned by its EXIF, one upright, one grey; pixels come out as they are."""
    first, second, third = sorted((photos / "train/cat").iterdir())[:3]
    turned = Image.Exif()
    turned[0x0112] = 6
    image = Image.open(first)
    image.save(first, exif=turned)
    image.rotate(90, expand=True).save(second)
    image.convert("L").save(third)
    return replace(load_data(str(photos), image_size=S), mean=(0.0,) * 3, std=(1 / 255,) * 3)


@pytest.fixture
def undecodable(monkeypatch):
    """From here on no file is decoded: what is seen comes from a cache."""

    def start():
        def refuse(*_):
            raise AssertionError("decoded")

        monkeypatch.setattr(files, "read_rgb", refuse)
        monkeypatch.setattr(cache, "read_rgb", refuse)

    return start


def pixels(data, *, resize, workers=0, epochs=2, augment=None):
    loader = TrainLoader(
        data, NEEDS, batch_size=5, seed=3, augment=augment, resize=resize, device="cpu", workers=workers
    )
    passes = [one for epoch in range(epochs) for step in loader.epoch(epoch) for one in step]
    return torch.cat([torch.cat((one.x, *one.views, one.pair)) for one in passes])


def scored(split, data, workers=0):
    return torch.cat([x for x, _ in eval_batches(split, data, batch_size=5, device="cpu", workers=workers)])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_training_sees_the_same_pixels(data, tmp_path, augment, workers):
    for side in (MARGIN, 75):
        plain = pixels(data, resize=side, augment=augment)
        kept = with_cache(data, side, tmp_path / "cache")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "read_rgb", None)
            assert torch.equal(pixels(kept, resize=side, augment=augment, workers=workers), plain)


@pytest.mark.parametrize("resize", [None, 75])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_files_decoded_once_change_no_pixel(data, tmp_path, augment, resize, undecodable):
    plain, of_test = pixels(data, resize=resize, augment=augment), scored(data.test, data)
    kept = decoded_once(replace(data, resizing=Resizing("bicubic", 0.9)), tmp_path / "cache")
    kept = decoded_once(replace(kept, resizing=data.resizing), tmp_path / "cache")
    undecodable()
    assert torch.equal(pixels(kept, resize=resize, augment=augment), plain)
    assert torch.equal(scored(kept.test, kept), of_test)


def test_files_that_are_decoded_are_not_opened_again(data, tmp_path, monkeypatch):
    kept = decoded_once(data, tmp_path / "cache")
    monkeypatch.setattr(cache, "open_image", None)
    assert decoded_once(data, tmp_path / "cache").train.cache.file == kept.train.cache.file


def test_large_files_are_decoded_each_time(data, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_WHOLE", 1000)
    assert decoded_once(data, tmp_path / "cache") is data
    assert not (tmp_path / "cache").exists()


def test_without_room_files_are_decoded_each_time(data, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.warns(UserWarning, match="decoded in each epoch"):
        assert decoded_once(data, tmp_path / "cache") is data


def by_hand(path, *, augment, resize, key):
    """An item of a training, from the documentation of torchvision alone."""
    flip = [v2.RandomHorizontalFlip()] if "flip" in augment else []
    if augment == "resized_crop_flip":
        steps = [v2.RandomResizedCrop(S)]
    else:
        steps = [v2.Resize(MARGIN), v2.CenterCrop(S) if augment == "none" else v2.RandomCrop(S)]
    image = read_rgb(path)
    if resize:
        image = v2.Resize(resize)(image)
    torch.manual_seed(hash_key(*key) >> 1)
    return v2.PILToTensor()(v2.Compose(steps + flip)(image))


@pytest.mark.parametrize("resize", [None, MARGIN, 75])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_items_are_those_of_torchvision(data, augment, resize):
    made = files.FileImages(data.train.paths, size=S, augment=augment, seed=4, resize=resize)
    for index in (0, 2, 11):
        expected = by_hand(data.train.paths[index], augment=augment, resize=resize, key=(4, 7, index, 1))
        assert torch.equal(made[7, index, 1], expected)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_cache_is_not_used_where_it_would_change_a_pixel(data, tmp_path, augment):
    plain = pixels(data, resize=None, augment=augment)
    for side in (MARGIN, 75):
        kept = with_cache(data, side, tmp_path)
        assert torch.equal(pixels(kept, resize=None, augment=augment), plain)
        assert torch.equal(pixels(kept, resize=76, augment=augment), pixels(data, resize=76, augment=augment))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_scored_is_the_same_and_comes_from_the_cache_at_the_margin(data, tmp_path, workers, undecodable):
    train, test = (scored(split, data) for split in (data.train, data.test))
    other, kept = with_cache(data, 75, tmp_path), with_cache(data, MARGIN, tmp_path)
    assert other.test.cache is None
    for split, expected in ((other.train, train), (other.test, test)):
        assert torch.equal(scored(split, data, workers), expected)
    undecodable()
    assert torch.equal(scored(kept.train, data, workers), train)
    assert torch.equal(scored(kept.test, data, workers), test)
    some = torch.tensor([9, 2, 5])
    assert torch.equal(scored(kept.train.select(some), data), train[some])
    assert torch.equal(scored(kept.train.spaced(4), data), train[[0, 4, 9, 13]])


def test_the_images_are_resized_as_by_torchvision(data, tmp_path):
    kept = with_cache(data, 75, tmp_path).train
    assert len(kept.cache) == len(kept)
    for at, path in enumerate(kept.paths):
        expected = np.asarray(v2.Resize(75)(read_rgb(path)))
        assert min(expected.shape[:2]) == 75
        assert np.array_equal(np.asarray(kept.cache[at]), expected)
    draw = np.random.default_rng(0)
    for width, height, side in draw.integers(1, 300, (300, 3)).tolist():
        blank = Image.new("L", (width, height))
        assert v2.Resize(side)(blank).size == sides_for((width, height), side)


def test_a_rectangle_of_each_file_is_kept(data, tmp_path):
    boxes = torch.tensor([[3, 4, 60, 50 + at % 9] for at in range(len(data.train))])
    cut = replace(data, train=replace(data.train, boxes=boxes))
    plain = pixels(cut, resize=75)
    kept = with_cache(cut, 75, tmp_path)
    assert torch.equal(pixels(kept, resize=75), plain)
    assert kept.train.cache.file != with_cache(data, 75, tmp_path).train.cache.file


def test_a_cache_is_found_again_and_made_anew_for_other_files(data, tmp_path, undecodable):
    first = with_cache(data, 75, tmp_path).train.cache.file
    assert with_cache(data, 76, tmp_path).train.cache.file != first
    changed = data.train.paths[4]
    known = changed.stat()
    os.utime(changed, ns=(known.st_atime_ns, known.st_mtime_ns + 1))
    later = with_cache(data, 75, tmp_path).train.cache.file
    changed.write_bytes(changed.read_bytes() + b"\0")
    os.utime(changed, ns=(known.st_atime_ns, known.st_mtime_ns + 1))
    longer = with_cache(data, 75, tmp_path).train.cache.file
    fewer = replace(data, train=data.train.select(torch.arange(7)))
    files_there = {first, later, longer, with_cache(fewer, 75, tmp_path).train.cache.file}
    assert len(files_there) == 4
    assert all(file.is_file() and file.name.startswith("photos-") for file in files_there)
    undecodable()
    again = with_cache(data, 75, tmp_path)
    assert again.train.cache.file == longer
    assert with_cache(again, 75, tmp_path) is again


def test_the_same_files_by_another_name_of_the_folder(data, tmp_path, monkeypatch):
    absolute = with_cache(data, 75, tmp_path).train.cache.file
    monkeypatch.chdir(data.train.paths[0].parents[3])
    relative = load_data("photos", image_size=S)
    assert not relative.train.paths[0].is_absolute()
    assert with_cache(relative, 75, tmp_path).train.cache.file == absolute


def test_a_set_in_memory_stays_as_it_is(coded, tmp_path):
    assert with_cache(coded, 75, tmp_path) is coded
    assert list(tmp_path.iterdir()) == []


def test_workers_are_sent_no_pixels(data, tmp_path):
    images = with_cache(data, MARGIN, tmp_path).train.cache
    sent = pickle.dumps(images)
    assert len(sent) < 2000 < images.file.stat().st_size
    assert all(np.array_equal(a, b) for a, b in zip(pickle.loads(sent), images, strict=True))


def test_a_file_of_several_views_is_decoded_once(data, monkeypatch):
    images = files.FileImages(data.train.paths, size=S, augment="crop", seed=0)
    keys = [(0, at, view) for view in (0, 1, -2) for at in (5, 3, 5, 8)]
    alone = [images[key] for key in keys]
    decoded = []
    monkeypatch.setattr(files, "read_rgb", lambda path, box: (decoded.append(path), read_rgb(path, box))[1])
    together = images.__getitems__(keys)
    assert decoded == [data.train.paths[at] for at in (5, 3, 8)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def left(folder):
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_what_is_interrupted_leaves_nothing(data, tmp_path, monkeypatch):
    whole = with_cache(data, 75, tmp_path / "whole").train.cache.file
    seen = []

    def stopped(path, box):
        seen.append(path)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return read_rgb(path, box)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "read_rgb", stopped)
        with pytest.raises(KeyboardInterrupt):
            with_cache(data, 75, tmp_path / "cache")
    assert left(tmp_path / "cache") == set()
    assert with_cache(data, 75, tmp_path / "cache").train.cache.file.read_bytes() == whole.read_bytes()


def _killed(data, folder):
    seen = []

    def read(path, box):
        seen.append(path)
        if len(seen) == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_rgb(path, box)

    cache.read_rgb, cache._AHEAD = read, 1
    with_cache(data, 75, folder)


def test_what_was_killed_is_never_used_and_cleared_away(data, tmp_path):
    folder = tmp_path / "cache"
    process = FORK.Process(target=_killed, args=(data, folder))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (leftover,) = left(folder)
    assert leftover.endswith(".tmp")
    kept = with_cache(data, 75, folder).train.cache
    assert left(folder) == {kept.file.name}
    assert np.array_equal(kept[3], v2.Resize(75)(read_rgb(data.train.paths[3])))


@pytest.mark.parametrize("cut", [1, 300, 10**9])
def test_a_cache_that_somebody_cut_short_is_made_anew(data, tmp_path, cut):
    file = with_cache(data, 75, tmp_path).train.cache.file
    whole = file.read_bytes()
    file.write_bytes(whole[: max(len(whole) - cut, 0)])
    assert with_cache(data, 75, tmp_path).train.cache.file == file
    assert file.read_bytes() == whole


def _make(paths, folder, barrier, answers):
    decoded = []
    cache.read_rgb = lambda path, box: (decoded.append(path), read_rgb(path, box))[1]
    barrier.wait(30)
    images = cached_images(paths, [None] * len(paths), side=75, name="both", folder=folder)
    answers.put((len(decoded), np.asarray(images[len(paths) - 1]).tobytes()))


def test_of_two_processes_one_decodes_and_both_have_it(data, tmp_path):
    paths, barrier, answers = data.train.paths, FORK.Barrier(2), FORK.Queue()
    processes = [FORK.Process(target=_make, args=(paths, tmp_path / "cache", barrier, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    (first, one), (second, other) = (answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert {first, second} == {0, len(paths)}
    assert one == other == np.asarray(v2.Resize(75)(read_rgb(paths[-1]))).tobytes()
    assert len(left(tmp_path / "cache")) == 1


def test_without_locks_both_decode_and_both_have_it(data, tmp_path, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    meeting = threading.Barrier(2)
    made = []

    def read(path, box):
        if path == data.train.paths[0]:
            meeting.wait(20)  # neither is done before the other has begun
        return read_rgb(path, box)

    monkeypatch.setattr(cache, "read_rgb", read)
    threads = [threading.Thread(target=lambda: made.append(with_cache(data, 75, tmp_path / "cache"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    one, other = (images.train.cache for images in made)
    assert left(tmp_path / "cache") == {one.file.name}
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_too_little_room_is_one_line_with_the_bytes(data, tmp_path, monkeypatch):
    needed = 3 * 75 * sum(round(75 * 90 / 70 - 0.5) for _ in data.train.paths)
    for free, refused in ((needed - 1, True), (needed, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(1, 1, free))
        if refused:
            with pytest.raises(OSError, match="cannot be kept") as told:
                with_cache(data, 75, tmp_path / "cache")
            assert str(told.value) == (
                f"decoded images cannot be kept in {tmp_path / 'cache'}: 18 images take {needed:,} bytes, and {free:,} "
                "are free there; choose another `data_root`, or do without `cache=True`"
            )
            assert left(tmp_path / "cache") == set()
        else:
            file = with_cache(data, 75, tmp_path / "cache").train.cache.file
            assert file.stat().st_size == needed + 4 * 8 * 18 + 32


def test_a_disk_that_fills_up_leaves_nothing(data, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot be kept in .*cache: No space left on device; choose another `data_r"):
        with_cache(data, 75, tmp_path / "cache")
    assert left(tmp_path / "cache") == set()


def test_a_folder_that_cannot_be_made_is_one_line(data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"decoded images cannot be kept in .*file/cache: Not a directory; choose"):
        with_cache(data, 75, tmp_path / "file/cache")


def test_a_file_that_cannot_be_read_is_one_line(data, tmp_path):
    broken = data.train.paths[7]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UnreadableImageError, match=r"07\.jpg: .*, or pass `skip_unreadable=True`\)$"):
        with_cache(data, 75, tmp_path / "cache")
    assert left(tmp_path / "cache") == set()
    broken.unlink()
    with pytest.raises(UnreadableImageError, match=r"07\.jpg: No such file or directory \(repair or replace it, or"):
        with_cache(data, 75, tmp_path / "cache")


def test_the_loader_refuses_what_makes_no_sense(data, coded):
    with pytest.raises(ValueError, match=r"^`resize` must be at least .* 70 pixels"):
        pixels(data, resize=69)
    with pytest.raises(ValueError, match=r"^`resize` is 90, "):
        pixels(coded, resize=90)


def test_many_images_are_decoded_a_few_ahead(data, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_AHEAD", 2)
    many = Split(torch.zeros(90, dtype=torch.int64), paths=data.train.paths * 5)
    kept = with_cache(replace(data, train=many), 75, tmp_path).train.cache
    for at, path in enumerate(many.paths[:40]):
        assert np.array_equal(kept[at], v2.Resize(75)(read_rgb(path)))
