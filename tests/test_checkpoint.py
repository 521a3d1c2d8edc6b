"""Opening and reading checkpoint files: what is right is read in pieces, what is wrong is refused (M15, M16, D25)."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from wamlib.errors import CheckpointError
from wamlib.merge.checkpoint import DTYPES, Room, open_checkpoint

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def states():
    generator = torch.Generator().manual_seed(0)
    return {
        "w": torch.randn(5, 3, generator=generator),
        "half": torch.randn(7, generator=generator).half(),
        "brain": torch.randn(7, generator=generator).bfloat16(),
        "wide": torch.randn(2, 2, generator=generator).double(),
        "steps": torch.tensor(12),
        "mask": torch.tensor([True, False, True]),
        "none": torch.zeros(0, 3),
        "complex": torch.tensor([1 + 2j]),
    }


def written(path, state):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def whole(checkpoint):
    return {key: checkpoint.read(key, 0, e.size).view(e.shape) for key, e in checkpoint.entries.items()}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.pth", "a.bin", "a.ckpt"])
def test_what_is_read_is_what_was_written(name, tmp_path):
    state = states()
    with open_checkpoint(written(tmp_path / name, state)) as checkpoint:
        torch.testing.assert_close(whole(checkpoint), state, rtol=0, atol=0)
        assert {k: (e.dtype, e.shape) for k, e in checkpoint.entries.items()} == {
            key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in state.items()
        }
        for start, stop in ((0, 4), (4, 15), (14, 15), (3, 3)):
            assert torch.equal(checkpoint.read("w", start, stop), state["w"].flatten()[start:stop])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype_of_the_format_is_read_and_written(dtype, tmp_path):
    from wamlib.merge.output import output

    tensor = torch.tensor([0.0, 1.0, 0.5, 3.0]).to(dtype)
    with open_checkpoint(written(tmp_path / "a.safetensors", {"w": tensor})) as checkpoint:
        assert torch.equal(checkpoint.read("w", 0, 4).view(torch.uint8), tensor.view(torch.uint8))
        with output(tmp_path / "b.safetensors", checkpoint.entries, {}) as out:
            out.write("w", 0, checkpoint.read("w", 0, 4))
            out.finish({})
    with open_checkpoint(tmp_path / "b.safetensors") as checkpoint:
        assert checkpoint.entries["w"].dtype == dtype
        assert torch.equal(checkpoint.read("w", 0, 4).view(torch.uint8), tensor.view(torch.uint8))


def test_reading_fills_the_memory_that_is_given(tmp_path):
    state = {"w": torch.arange(6.0)}
    with open_checkpoint(written(tmp_path / "a.safetensors", state)) as checkpoint:
        room = Room.of(3, torch.float32)
        got = checkpoint.read("w", 1, 4, room)
        assert got.tolist() == [1.0, 2.0, 3.0]
        assert got.data_ptr() == room.values.data_ptr()


def test_a_tensor_that_is_not_contiguous_is_read_in_its_own_order(tmp_path):
    w = torch.arange(24.0).view(2, 3, 4).transpose(0, 2)
    torch.save({"w": w}, tmp_path / "a.pt")
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert checkpoint.read("w", 5, 20).tolist() == w.flatten()[5:20].tolist()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_prefixes_are_stripped_with_a_notice_that_names_the_file(name, prefix, tmp_path):
    path = written(tmp_path / name, {prefix + key: tensor for key, tensor in states().items()})
    with (
        pytest.warns(UserWarning, match=f"stripped the prefix '{prefix}'.*{name}"),
        open_checkpoint(path) as checkpoint,
    ):
        assert checkpoint.entries.keys() == states().keys()


def test_sha256_is_that_of_the_bytes(tmp_path):
    import hashlib

    path = written(tmp_path / "a.safetensors", {"w": torch.zeros(200_000)})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
        assert checkpoint.n_bytes == path.stat().st_size


# What is wrong


def refused(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("cut", [0, 4, 7, 8, 60, 200, -1])
def test_a_truncated_safetensors_file_is_refused(cut, tmp_path):
    path = written(tmp_path / "a.safetensors", states())
    path.write_bytes(path.read_bytes()[:cut])
    refused(path, "cannot read a checkpoint")


@pytest.mark.parametrize("cut", [0, 10, 0.5, -1])
def test_a_truncated_pickle_is_refused(cut, tmp_path):
    path = written(tmp_path / "a.pt", states())
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    refused(path, "cannot read a checkpoint")


def test_bytes_after_the_end_are_refused(tmp_path):
    path = written(tmp_path / "a.safetensors", states())
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, "as the header says")


def header(tensors):
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


def described(**changes):
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


HEADERS = {
    "not JSON": (b"{nope", "corrupt header"),
    "not text": (b"\xff\xfe\xfd", "corrupt header"),
    "a list": ([1], "corrupt header"),
    "no dtype": ({"w": {"shape": [2], "data_offsets": [0, 8]}}, "corrupt header"),
    "unknown dtype": (described(dtype="F7"), "unknown dtype 'F7'"),
    "a shape that does not fit": (described(shape=[3]), "has 8 bytes"),
    "a negative shape": (described(shape=[-2]), "has the shape"),
    "a shape of texts": (described(shape=["2"]), "has the shape"),
    "a gap": (described(data_offsets=[8, 16]), "where the last one ends"),
    "an overlap": ({**described(), "v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, "where the last one"),
    "metadata that is not text": ({"__metadata__": {"a": 1}, **described()}, "metadata"),
    "three offsets": (described(data_offsets=[0, 4, 8]), "corrupt header"),
}


@pytest.mark.parametrize(("tensors", "said"), HEADERS.values(), ids=HEADERS)
def test_a_corrupt_header_is_refused(tensors, said, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(header(tensors) + b"\0" * 16)
    refused(path, said)


def test_a_header_that_is_right_is_read(tmp_path):
    path = tmp_path / "a.safetensors"  # the twin
    path.write_bytes(header(described()) + b"\0" * 8)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w", 0, 2).tolist() == [0.0, 0.0]


def test_a_header_that_says_it_is_longer_than_the_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    refused(path, "begin with no such header")


def test_equal_headers_are_checked_once_but_sizes_always(tmp_path):
    state, known = {"w": torch.ones(4)}, {}
    a, b, c = (written(tmp_path / f"{name}.safetensors", state) for name in "abc")
    c.write_bytes(c.read_bytes()[:-4])
    with open_checkpoint(a, known) as first, open_checkpoint(b, known) as second:
        assert first.entries is second.entries
        assert len(known) == 1
    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        open_checkpoint(c, known)


class Payload:
    def __reduce__(self):
        return (os.system, ("true",))


PICKLED = {
    "a pickled module": (torch.nn.Linear(2, 2), "pickled module or other objects"),
    "code": ({"w": Payload()}, "pickled module or other objects"),
    "a list": ([torch.ones(1)], "a list"),
    "a tensor": (torch.ones(1), "a Tensor"),
    "a training checkpoint": ({"epoch": 3, "model": {"w": torch.ones(1)}}, "a int under 'epoch'"),
    "a state dict inside": ({"model": {"w": torch.ones(1)}}, r"checkpoint\['model'\]"),
    "keys that are numbers": ({1: torch.ones(1)}, "under 1"),
    "a sparse tensor": ({"w": torch.eye(2).to_sparse()}, "sparse"),
}


@pytest.mark.parametrize(("saved", "said"), PICKLED.values(), ids=PICKLED)
def test_pickles_that_are_no_state_dict_are_refused(saved, said, tmp_path):
    torch.save(saved, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", said)


def test_a_missing_file_a_folder_and_one_without_permission_are_refused(tmp_path):
    refused(tmp_path / "none.safetensors", "No such file")
    refused(tmp_path, "no file")
    if os.geteuid():
        path = written(tmp_path / "a.safetensors", states())
        path.chmod(0)
        refused(path, "Permission denied")


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\3\4" + b"\0" * 100)
    refused(tmp_path / "a.npz", r"or a state dict named \.pt")


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    path = written(tmp_path / "a.safetensors", {"w": torch.ones(1000)})
    with open_checkpoint(path) as checkpoint:
        os.truncate(path, 2000)
        with pytest.raises(CheckpointError, match="changed while it was read"):
            checkpoint.read("w", 0, 1000)


def test_a_file_that_changes_is_found_out_and_one_that_does_not_is_not(tmp_path):
    path = written(tmp_path / "a.safetensors", {"w": torch.ones(1000)})
    with open_checkpoint(path) as checkpoint:
        checkpoint.check_unchanged()
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\0")
        os.utime(path, ns=(1, 1))
        with pytest.raises(CheckpointError, match="changed while it was read"):
            checkpoint.check_unchanged()


def test_the_file_is_known_under_every_name(tmp_path):
    path = written(tmp_path / "a.safetensors", states())
    (tmp_path / "link").symlink_to(path)
    os.link(path, tmp_path / "hard")
    with open_checkpoint(path) as checkpoint:
        for name in ("a.safetensors", "link", "hard", "../" + tmp_path.name + "/a.safetensors"):
            assert checkpoint.is_same_file(tmp_path / name)
        assert not checkpoint.is_same_file(tmp_path / "other")
        assert not checkpoint.is_same_file(written(tmp_path / "copy.safetensors", states()))


def test_no_descriptor_is_left_open(tmp_path):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    path = written(tmp_path / "a.safetensors", states())
    with open_checkpoint(path) as checkpoint:
        checkpoint.read("w", 0, 1)
    (tmp_path / "b.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "b.safetensors")
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
