"""Files that are decoded while training, by worker processes."""

import gc
import multiprocessing
import os
import re
import signal
import weakref
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.data import Split, TrainLoader, eval_batches, load_data
from selfdistill.method import Needs

# Python 3.12 and later warn of fork in a process with threads; torch's loader forks by default there.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")

NEEDS = Needs(views=2, pair="any", index=True)
GROUPED = NEEDS | Needs(group=3, previous=True)


def batches(data, *, epoch=0, start=0, **changed):
    loader = TrainLoader(data, NEEDS, **({"batch_size": 5, "seed": 0, "device": "cpu", "workers": 0} | changed))
    return [batch for step in loader.epoch(epoch, start) for batch in step]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        for one, other in zip(
            (a.x, a.y, a.views[0], a.pair, a.index), (b.x, b.y, b.views[0], b.pair, b.index), strict=True
        ):
            assert torch.equal(one, other)


def test_large_files_are_kept_as_paths(photos):
    data = load_data(str(photos))
    assert data.train.images is None
    assert (len(data.train.paths), len(data.test.paths)) == (18, 4)
    assert (data.image_size, data.augment) == (224, "resized_crop_flip")
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_images_do_not_depend_on_workers_over_epochs(photos):
    data = load_data(str(photos), image_size=72)
    alone = TrainLoader(data, NEEDS, batch_size=5, seed=0, device="cpu", workers=0)
    helped = TrainLoader(data, NEEDS, batch_size=5, seed=0, device="cpu", workers=2)
    for epoch in (0, 1):
        one, other = ([b for step in loader.epoch(epoch) for b in step] for loader in (alone, helped))
        assert_same(one, other)
        assert [tuple(b.x.shape) for b in one] == [(5, 3, 72, 72)] * 3 + [(3, 3, 72, 72)]
    next(iter(helped.epoch(2)))  # an epoch that is left early does not spoil the next
    assert_same([b for step in helped.epoch(3) for b in step], batches(data, epoch=3))


def test_images_do_not_depend_on_batch_size_or_start(photos):
    data = load_data(str(photos), image_size=72)
    whole = batches(data, epoch=1)
    assert_same(batches(data, epoch=1, start=2), whole[2:])
    large = batches(data, epoch=1, batch_size=18)[0]
    for get in (lambda b: b.x, lambda b: b.views[0], lambda b: b.pair, lambda b: b.index):
        assert torch.equal(torch.cat([get(batch) for batch in whole]), get(large))


def test_groups_and_previous_batches_are_those_of_a_set_in_memory_whatever_the_workers(photos):
    files = load_data(str(photos), image_size=72)
    plain = next(eval_batches(files.train, files, batch_size=18, device="cpu", workers=0))[0]
    images = Split(files.train.labels, images=torch.zeros(18, 3, 72, 72, dtype=torch.uint8))
    memory = replace(files, train=images, augment="crop")
    given = {"batch_size": 12, "passes": 2, "seed": 1, "device": "cpu"}
    alone, helped = (TrainLoader(files, GROUPED, workers=workers, augment="none", **given) for workers in (0, 2))
    for epoch, start in ((0, 0), (1, 0), (1, 3)):
        runs = [
            [b for step in made.epoch(epoch, start) for b in step]
            for made in (alone, helped, TrainLoader(memory, GROUPED, **given))
        ]
        assert [len(made) for made in runs] == [2 * (5 - start)] * 3
        for one, other, expected in zip(*runs, strict=True):
            assert torch.equal(one.index, expected.index)
            assert torch.equal(one.y, expected.y)
            assert torch.equal(one.index, other.index)
            assert torch.equal(one.x, plain[one.index])  # not augmented: the rows are in their places
            assert torch.equal(one.x, other.x)
            assert torch.equal(one.pair, other.pair)
            assert (one.previous is None) is (other.previous is None) is (expected.previous is None)
            if one.previous is not None:
                assert torch.equal(one.previous[0], other.previous[0])
                assert torch.equal(one.previous[1], expected.previous[1])


def test_groups_and_previous_batches_are_augmented_anew(photos):
    made = TrainLoader(load_data(str(photos), image_size=72), GROUPED, batch_size=6, seed=0, device="cpu", workers=0)
    run = [batch for step in made.epoch(0) for batch in step]
    for before, now in pairwise(run):
        pixels, labels = now.previous
        assert torch.equal(labels, before.y)
        assert (pixels != before.x).flatten(1).any(dim=1).all()
    (resumed,) = next(iter(made.epoch(0, start=4)))
    assert torch.equal(resumed.x, run[4].x)
    assert torch.equal(resumed.previous[0], run[4].previous[0])
    rows = torch.cat([batch.x for batch in run[:3]])
    index = torch.cat([batch.index for batch in run[:3]])
    for at in index.unique():  # as an anchor and as the next image of a group: two augmentations
        anchor, follower = (rows[(index == at) & (torch.arange(18) % 3 == nth)] for nth in (0, 1))
        if len(anchor) and len(follower):
            assert not torch.equal(anchor[0], follower[0])


def test_views_epochs_and_seeds_differ(photos):
    data = load_data(str(photos), image_size=72)
    first = batches(data, batch_size=18)[0]
    assert not torch.equal(first.x, first.views[0])
    at = first.index.argsort()
    for changed in ({"epoch": 1}, {"seed": 1}):
        other = batches(data, batch_size=18, **changed)[0]
        assert not torch.equal(first.x[at], other.x[other.index.argsort()])


def test_the_global_generator_is_not_touched(photos):
    data = load_data(str(photos), image_size=72)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    batches(data)
    list(eval_batches(data.test, data, batch_size=4, device="cpu", workers=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_is_resize_and_centre_crop(photos):
    data = load_data(str(photos), image_size=70)
    ((x, y),) = eval_batches(data.test, data, batch_size=9, device="cpu", workers=0)
    image = Image.open(data.test.paths[0]).resize((int(90 * 80 / 70), 80), Image.Resampling.BILINEAR)
    left, top = round((image.width - 70) / 2), 5
    pixels = torch.tensor(np.array(image.crop((left, top, left + 70, top + 70))) / 255.0).permute(2, 0, 1)
    expected = (pixels - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1)
    torch.testing.assert_close(x[0], expected.float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(y, data.test.labels)


@pytest.mark.parametrize("augment", ["none", "crop", "crop_flip", "resized_crop_flip"])
def test_every_augmentation_takes_files(photos, augment):
    data = load_data(str(photos), image_size=72)
    plain = next(eval_batches(data.train, data, batch_size=18, device="cpu", workers=0))[0]
    batch = batches(data, batch_size=18, augment=augment)[0]
    assert torch.equal(batch.x, plain[batch.index]) is (augment == "none")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_during_the_run_is_named_in_one_line(photos, workers):
    data = load_data(str(photos), image_size=72)
    broken = data.train.paths[7]
    broken.write_bytes(broken.read_bytes()[:200])
    line = rf"^{re.escape(str(broken))}: [^\n]*repair or replace it, or pass `skip_unreadable=True`[^\n]*$"
    with pytest.raises(RuntimeError, match=line):  # kept by a name, the error would keep the loader and its workers
        batches(data, workers=workers)
    broken.unlink()
    with pytest.raises(RuntimeError, match=r"07\.jpg: No such file or directory \(repair or replace"):
        batches(data, workers=workers)


@pytest.mark.parametrize("steps", [2, 4])
def test_a_loader_ends_with_its_last_reference(photos, steps):
    # In a reference cycle its queues close before they tell the workers to end: ten seconds a worker.
    loader = TrainLoader(load_data(str(photos), image_size=72), NEEDS, batch_size=5, seed=0, device="cpu", workers=1)
    assert len(list(islice(loader.epoch(0), steps))) == steps
    gone = weakref.ref(loader)
    gc.disable()
    try:
        del loader
        assert gone() is None
    finally:
        gc.enable()


def test_signals_to_all_processes_leave_the_workers_at_work(photos):
    others = set(multiprocessing.active_children())  # of tests before this one
    loader = TrainLoader(load_data(str(photos), image_size=72), NEEDS, batch_size=5, seed=0, device="cpu", workers=2)
    assert len(list(loader.epoch(0))) == 4  # so that both have started
    batches = loader.epoch(1)
    next(batches)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    for number in (signal.SIGINT, signal.SIGTERM):
        for worker in workers:
            os.kill(worker.pid, number)
    assert len(list(batches)) == 3
    assert len(list(loader.epoch(2))) == 4
    assert workers <= set(multiprocessing.active_children())
