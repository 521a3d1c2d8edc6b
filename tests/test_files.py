"""Merging files: the values of the merges in memory to the bit, and nothing written when something is wrong (M16)."""

import errno
import json
import os
import stat

import numpy as np
import pytest
import torch
from references import eighths, fine_tuned
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wamlib import merge
from wamlib.errors import CheckpointError, MemberMismatchError, MergeError, NonFiniteMemberError
from wamlib.merge import merge_files, output, sources, sphere, thresholds
from wamlib.merge.checkpoint import open_checkpoint
from wamlib.merge.files import METHODS

BITS = {
    "uniform": ({}, lambda base, members: merge.uniform_soup(members)),
    "weighted": ({"weights": [0.7, -0.1, 0.6]}, lambda base, members: merge.uniform_soup(members, [0.7, -0.1, 0.6])),
    "task_arithmetic": ({"scale": 0.3}, lambda base, members: merge.task_arithmetic(base, members, 0.3)),
    "ties": ({"density": 0.3, "scale": 0.7}, lambda base, members: merge.ties(base, members, 0.3, 0.7)),
    "ties all": ({"density": 1}, lambda base, members: merge.ties(base, members, 1)),
    "ties none": ({"density": 0}, lambda base, members: merge.ties(base, members, 0)),
    "ties tensor": (
        {"density": 0.3, "scope": "tensor"},
        lambda base, members: merge.ties(base, members, 0.3, scope="tensor"),
    ),
    "dare": ({"density": 0.5, "seed": 3}, lambda base, members: merge.dare(base, members, 0.5, seed=3)),
    "interpolate": ({"alpha": 0.3}, lambda base, members: merge.interpolate(*members, 0.3)),
}
# Dot products over a tensor are summed in another order, which may move the last bit.
LAST_BIT = {
    "model_stock": ({}, merge.model_stock),
    "slerp": ({"alpha": 0.3}, lambda base, members: merge.slerp(*members, 0.3)),
    "slerp tensor": (
        {"alpha": 0.3, "scope": "tensor"},
        lambda base, members: merge.slerp(*members, 0.3, scope="tensor"),
    ),
}
NAMES = {"weighted": "uniform"}


def method_of(name):
    return NAMES.get(name, name.split()[0])


def random_pool(n=3, dtype=torch.float32):
    """Tensors of every kind, with values that round, longer than the pieces that the tests cut them into."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    def state():
        return {
            "conv.weight": draw(17, 3, 3, 3),
            "norm.running_mean": draw(17),
            "norm.running_var": draw(17).abs() + 0.1,
            "norm.num_batches_tracked": torch.randint(99, (), generator=generator),
            "scale": draw(),
            "none": draw(0, 3),
            "head.weight": draw(7, 33),
        }

    return state(), [state() for _ in range(n)]


def on_disk(folder, base, members, suffix=".safetensors"):
    paths = []
    for name, state in [("base", base), *((f"m{index}", member) for index, member in enumerate(members))]:
        paths.append(folder / f"{name}{suffix}")
        if suffix == ".safetensors":
            save_file(state, paths[-1])
        else:
            torch.save(state, paths[-1])
    return paths[0], paths[1:]


def merged(folder, name, base, members, suffix=".safetensors", **more):
    settings = {**BITS, **LAST_BIT}[name][0]
    members = members[:2] if method_of(name) in ("interpolate", "slerp") else members
    base_path, paths = on_disk(folder, base, members, suffix)
    if METHODS[method_of(name)].needs_base:
        more["base"] = base_path
    out = folder / "out.safetensors"
    merge_files(paths, out, method_of(name), **settings, **more)
    return load_file(out), {**BITS, **LAST_BIT}[name][1](base, members)


@pytest.fixture(params=[5, 64, None], ids=["pieces of 5", "pieces of 64", "whole tensors"])
def _pieces(request, monkeypatch):
    """Cut tensors into several pieces, as large ones are."""
    if request.param:
        monkeypatch.setattr(sphere, "PIECE", request.param)
        for function in (sources.Opened.pieces, sources.Source.summed):
            monkeypatch.setattr(function, "__defaults__", (request.param,))


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", BITS)
def test_files_merge_to_the_bits_of_the_merge_in_memory(name, dtype, tmp_path):
    got, wanted = merged(tmp_path, name, *random_pool(dtype=dtype))
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAST_BIT)
def test_angles_are_those_of_the_merge_in_memory(name, dtype, tmp_path):
    got, wanted = merged(tmp_path, name, *random_pool(dtype=dtype))
    assert got.keys() == wanted.keys()
    for key, tensor in got.items():
        # In float64 nothing rounds the difference away: the shares differ in the 16th digit, and may cancel.
        eps = max(torch.finfo(dtype).eps, 1e-12) if tensor.is_floating_point() else 0
        torch.testing.assert_close(tensor, wanted[key], rtol=eps, atol=min(eps, 1e-13))


@pytest.mark.parametrize("name", [*BITS, *LAST_BIT])
def test_pickled_state_dicts_merge_as_safetensors_do(name, tmp_path):
    got, wanted = merged(tmp_path, name, *random_pool(), suffix=".pt")
    torch.testing.assert_close(got, wanted, rtol=1e-6 if name in LAST_BIT else 0, atol=0)


def test_both_kinds_of_file_can_be_merged(tmp_path):
    _, members = random_pool(2)
    save_file(members[0], tmp_path / "a.safetensors")
    torch.save(members[1], tmp_path / "b.pth")
    merge_files([tmp_path / "a.safetensors", tmp_path / "b.pth"], tmp_path / "out.safetensors")
    torch.testing.assert_close(load_file(tmp_path / "out.safetensors"), merge.uniform_soup(members), rtol=0, atol=0)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("name", ["uniform", "ties", "dare"])
def test_the_number_of_threads_changes_nothing(name, n_threads, tmp_path, monkeypatch):
    monkeypatch.setattr(sources.Opened.pieces, "__defaults__", (7,))
    threads = torch.get_num_threads()
    got, wanted = merged(tmp_path, name, *random_pool(), n_threads=n_threads)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["uniform", "ties", "dare", "task_arithmetic"])
def test_more_members_than_a_byte_counts(name, tmp_path):
    base = {"w": torch.zeros(4)}
    members = [{"w": torch.tensor([1.0, -1.0, 1.0 if i % 2 else -3.0, 0.5])} for i in range(300)]
    got, wanted = merged(tmp_path, name, base, members)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    if name == "ties":
        everything = merge.ties(base, members, 1)["w"]
        assert everything.tolist() == [1.0, -1.0, -3.0, 0.5]


# TIES: the sign of a zero sum, which depends on all other tensors


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("others", [-1.0, 1.0, 0.0])
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_a_zero_sum_takes_the_sign_that_it_takes_in_memory(scope, others, tmp_path):
    base = {"a": torch.zeros(12), "b": torch.zeros(40)}
    members = [{"a": sign * torch.ones(12), "b": torch.full((40,), others)} for sign in (1, -1)]
    base_path, paths = on_disk(tmp_path, base, members)
    merge_files(paths, tmp_path / "out.safetensors", "ties", base=base_path, density=1, scope=scope)
    got, wanted = load_file(tmp_path / "out.safetensors"), merge.ties(base, members, 1, scope=scope)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    assert got["a"][0] == (1.0 if scope == "tensor" or others > 0 else -1.0)


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 0.77, 0.999])
@pytest.mark.parametrize("held", [1, 40, 10**6])
@pytest.mark.parametrize("sample", [40, 10**6])
@pytest.mark.parametrize("kind", ["normal", "float64", "mostly zero", "two values", "one giant", "all equal", "sorted"])
def test_the_threshold_is_exact_whatever_the_guess(kind, sample, held, density, tmp_path, monkeypatch):
    monkeypatch.setattr(thresholds, "SAMPLE", sample)
    monkeypatch.setattr(thresholds, "BLOCK", 8)
    monkeypatch.setattr(thresholds, "HELD", held)
    monkeypatch.setattr(sources.Opened.pieces, "__defaults__", (100,))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 700, generator=generator, dtype=torch.float64 if kind == "float64" else torch.float32)
    x = {
        "mostly zero": x * (torch.rand(x.shape, generator=generator) < 0.1),
        "two values": x.sign() * (1 + (x.abs() > 1)),
        "one giant": torch.where(x == x.max(), 1e30, x),
        "all equal": torch.ones_like(x),
        "sorted": x.flatten().sort().values.view(x.shape),
    }.get(kind, x)
    base = {"a": torch.zeros_like(x[0]), "b": torch.zeros_like(x[1])}
    member_state = {"a": x[0].contiguous(), "b": x[1].contiguous()}
    base_path, paths = on_disk(tmp_path, base, [member_state])
    with open_checkpoint(paths[0]) as member, open_checkpoint(base_path) as start, sources.workers(1) as executor:
        files = sources.Opened([member], start, executor, lambda *_: None)
        (found,) = thresholds.thresholds(files, ["a", "b"], density)
    (in_memory,) = thresholds.thresholds(sources.Loaded([member_state], base), ["a", "b"], density)
    kept = int(density * x.numel())
    assert in_memory == found == x.abs().flatten().sort(descending=True).values[kept - 1].item()


def test_a_threshold_between_two_float32_numbers_keeps_what_is_not_below_it(tmp_path):
    # The threshold comes from the float64 tensor; rounded to float32 it would keep, or lose, an entry of the other.
    just = 1 + 2**-30
    base = {"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.float64)}
    member = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([just, 2.0], dtype=torch.float64)}
    base_path, paths = on_disk(tmp_path, base, [member])
    merge_files(paths, tmp_path / "out.safetensors", "ties", base=base_path, density=0.75)
    got = load_file(tmp_path / "out.safetensors")
    assert got["a"].tolist() == [0.0, 3.0]
    assert got["b"].tolist() == [just, 2.0]
    torch.testing.assert_close(got, merge.ties(base, [member], 0.75), rtol=0, atol=0)


# Ties between tensors


def test_tied_tensors_are_merged_once_and_written_under_both_names(tmp_path):
    base, members = random_pool()
    tied = [{**state, "twin": state["head.weight"], "third": state["head.weight"]} for state in [base, *members]]
    base_path, paths = on_disk(tmp_path, tied[0], tied[1:], ".pt")
    out = tmp_path / "out.safetensors"
    plan = merge_files(paths, out, "dare", base=base_path, density=0.5, seed=0)
    got = load_file(out)
    assert torch.equal(got["twin"], got["head.weight"])
    assert torch.equal(got["third"], got["head.weight"])
    torch.testing.assert_close(got, merge.dare(tied[0], tied[1:], 0.5, seed=0), rtol=0, atol=0)
    assert {row["key"]: row["plan"] for row in plan.tensors}["twin"] == "copy of head.weight"
    # The twin: equal values that share no memory are two tensors, with two masks.
    apart = [{**state, "twin": state["head.weight"].clone()} for state in [base, *members]]
    base_path, paths = on_disk(tmp_path, apart[0], apart[1:], ".pt")
    merge_files(paths, out, "dare", base=base_path, density=0.5, seed=0)
    assert not torch.equal(load_file(out)["twin"], load_file(out)["head.weight"])


def test_tied_in_one_file_and_different_in_another_is_refused(tmp_path):
    _, (a, b) = random_pool(2)
    torch.save({**a, "twin": a["head.weight"]}, tmp_path / "a.pt")
    torch.save({**b, "twin": b["head.weight"] + 1}, tmp_path / "b.pt")
    with pytest.raises(MemberMismatchError, match=r"'twin'.*b\.pt.*ties the two"):
        merge_files([tmp_path / "a.pt", tmp_path / "b.pt"], tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_chain_of_ties_through_several_files_is_one_tensor(tmp_path):
    w = torch.tensor([1.0, -2.0])
    pairs = [("c", "d"), ("b", "c"), ("a", "b")]
    states = [{key: w if key in pair else w.clone() for key in "abcd"} for pair in pairs]
    base = {key: torch.zeros(2) for key in "abcd"}
    base_path, paths = on_disk(tmp_path, base, states, ".pt")
    merge_files(paths, tmp_path / "out.safetensors", "dare", base=base_path, density=0.5, seed=0)
    got = load_file(tmp_path / "out.safetensors")
    wanted = merge.dare(base, states, 0.5, seed=0)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    assert len({tensor.data_ptr() for tensor in wanted.values()}) == 1


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_merged_in_memory_as_in_files(dtype, tmp_path):
    states = [{"w": tensor.to(dtype)} for tensor in torch.randn(3, 50, generator=torch.Generator().manual_seed(0))]
    base_path, paths = on_disk(tmp_path, states[0], states[1:])
    for method, merged, base, settings in [
        ("uniform", merge.uniform_soup(states[1:]), None, {}),
        ("ties", merge.ties(states[0], states[1:], 0.5), base_path, {"density": 0.5}),
    ]:
        merge_files(paths, tmp_path / "out.safetensors", method, base=base, **settings)
        got = load_file(tmp_path / "out.safetensors")["w"]
        assert torch.equal(got.view(torch.uint8), merged["w"].view(torch.uint8))
    states[1]["w"].view(torch.uint8)[3] = 0x7F  # NaN in both kinds
    with pytest.raises(NonFiniteMemberError, match=r"member 0: got 1 value"):
        merge.uniform_soup(states[1:])


# What the output says, and how it is written


def test_the_metadata_says_what_was_merged(tmp_path):
    import hashlib

    base, members = random_pool()
    base_path, paths = on_disk(tmp_path, base, members)
    done = merge_files(paths, tmp_path / "out.safetensors", "ties", base=base_path, density=0.2)
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        notes = file.metadata()
    assert notes["format"] == "pt"
    record = json.loads(notes["wamlib"])
    assert record["method"] == "ties"
    assert record["settings"] == {"density": 0.2}
    assert record["version"] == __import__("importlib.metadata").metadata.version("wamlib")
    for entry, path in zip([*record["inputs"], record["base"]], [*paths, base_path], strict=True):
        assert entry == {
            "file": str(path),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    assert done.inputs == record["inputs"]
    assert done.written


@pytest.mark.parametrize("array", [np.array, torch.tensor, tuple])
def test_weights_of_any_kind_are_recorded_as_numbers(array, tmp_path):
    _, members = random_pool()
    _, paths = on_disk(tmp_path, *random_pool())
    merge_files(paths, tmp_path / "out.safetensors", weights=array([0.5, 0.25, 0.25]))
    torch.testing.assert_close(
        load_file(tmp_path / "out.safetensors"), merge.uniform_soup(members, [0.5, 0.25, 0.25]), rtol=0, atol=0
    )
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["wamlib"])["settings"] == {"weights": [0.5, 0.25, 0.25]}


def test_checksums_can_be_left_out(tmp_path):
    _, paths = on_disk(tmp_path, *random_pool())
    merge_files(paths, tmp_path / "out.safetensors", checksums=False)
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert [entry["sha256"] for entry in json.loads(file.metadata()["wamlib"])["inputs"]] == [None] * 3


def test_every_tensor_is_aligned_and_the_file_is_what_other_readers_read(tmp_path):
    state = {
        "bytes": torch.ones(3, dtype=torch.uint8),
        "w": torch.ones(3),
        "half": torch.ones(1).half(),
        "wide": torch.ones(2).double(),
    }
    save_file(state, tmp_path / "a.safetensors")
    merge_files([tmp_path / "a.safetensors"], tmp_path / "out.safetensors")
    torch.testing.assert_close(load_file(tmp_path / "out.safetensors"), state, rtol=0, atol=0)
    content = (tmp_path / "out.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    for key, row in json.loads(content[8 : 8 + length]).items():
        if key != "__metadata__":
            assert row["data_offsets"][0] % state[key].element_size() == 0


def test_a_dry_run_plans_everything_and_writes_nothing(tmp_path):
    base, members = random_pool()
    base_path, paths = on_disk(tmp_path, base, members)
    before = sorted(tmp_path.iterdir())
    plan = merge_files(paths, tmp_path / "out.safetensors", "ties", base=base_path, density=0.2, dry_run=True)
    assert sorted(tmp_path.iterdir()) == before
    assert not plan.written
    assert {row["key"]: row["plan"] for row in plan.tensors} == {
        "conv.weight": "ties",
        "norm.running_mean": "mean",
        "norm.running_var": "mean",
        "norm.num_batches_tracked": "from the first member",
        "scale": "ties",
        "none": "ties",
        "head.weight": "ties",
    }
    assert {row["key"]: (row["shape"], row["dtype"]) for row in plan.tensors}["head.weight"] == ((7, 33), "float32")


def test_progress_ends_where_it_should(tmp_path):
    seen = {}
    base_path, paths = on_disk(tmp_path, *random_pool())
    merge_files(
        paths,
        tmp_path / "out.safetensors",
        "ties",
        base=base_path,
        density=0.2,
        progress=lambda what, done, total: seen.setdefault(what, []).append((done, total)),
    )
    assert list(seen) == ["finding thresholds", "merging", "hashing"]
    for steps in seen.values():
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1] > 0
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_an_old_output_is_replaced_and_its_links_are_left_alone(tmp_path):
    _, paths = on_disk(tmp_path, *random_pool())
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    os.link(out, tmp_path / "kept")
    merge_files(paths, out)
    assert (tmp_path / "kept").read_bytes() == b"old"
    assert load_file(out)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~mask


def test_an_output_that_is_a_symbolic_link_is_written_where_it_leads(tmp_path):
    _, paths = on_disk(tmp_path, *random_pool())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.safetensors").symlink_to(tmp_path / "elsewhere" / "real.safetensors")
    merge_files(paths, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").is_symlink()
    assert load_file(tmp_path / "elsewhere" / "real.safetensors")


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EISDIR])
def test_a_file_system_without_nameless_files_is_written_to_as_well(error, tmp_path, monkeypatch):
    _, paths = on_disk(tmp_path, *random_pool())
    real, refused = os.open, []

    def open_(path, flags, *rest, **more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            refused.append(path)
            raise OSError(error, os.strerror(error))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(output.os, "open", open_)
    before = set(tmp_path.iterdir())
    merge_files(paths, tmp_path / "out.safetensors")
    assert refused
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out.safetensors"}
    save_file({k: t * float("nan") if t.is_floating_point() else t for k, t in random_pool()[0].items()}, paths[0])
    with pytest.raises(NonFiniteMemberError):
        merge_files(paths, tmp_path / "again.safetensors")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out.safetensors"}


# What is wrong

CHANGES = {
    "shape": ("head.weight", lambda t: t.T.contiguous(), MemberMismatchError, r"shape \(33, 7\), wanted \(7, 33\)"),
    "dtype": ("head.weight", lambda t: t.half(), MemberMismatchError, r"dtype torch.float16, wanted torch.float32"),
    "one more key": ("extra", lambda t: torch.zeros(1), MemberMismatchError, r"it has, and .* lacks, 'extra'"),
    "one key less": ("head.weight", None, MemberMismatchError, r"it lacks 'head.weight'"),
    "NaN": (
        "head.weight",
        lambda t: t.index_fill(0, torch.tensor([2]), float("nan")),
        NonFiniteMemberError,
        r"'head.weight'.*33 value\(s\)",
    ),
    "infinity": ("scale", lambda t: t / 0, NonFiniteMemberError, r"'scale'.*1 value\(s\)"),
    "NaN in a statistic": ("norm.running_var", lambda t: t * float("nan"), NonFiniteMemberError, "running_var"),
}


OF_A_BASE = ["ties", "ties none", "dare", "task_arithmetic", "model_stock"]


@pytest.mark.parametrize(
    ("name", "where"),
    [(name, where) for name in ["uniform", "slerp", *OF_A_BASE] for where in (0, 1)] + [(n, "base") for n in OF_A_BASE],
)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_misfits_are_refused_by_the_name_of_the_file_and_nothing_is_written(change, where, name, tmp_path):
    key, broken, error, said = change
    needs_base = METHODS[method_of(name)].needs_base
    base, members = random_pool(2)
    state = base if where == "base" else members[where]
    if broken is None:
        del state[key]
    else:
        state[key] = broken(state.get(key, torch.zeros(1)))
    base_path, paths = on_disk(tmp_path, base, members)
    before = sorted(tmp_path.iterdir())
    settings = {**BITS, **LAST_BIT}[name][0]
    # Layouts are compared with the first member's, so a broken first one makes the others differ.
    with pytest.raises(error, match=said if where == 1 or "value" in said else "cannot merge") as caught:
        merge_files(
            paths, tmp_path / "out.safetensors", method_of(name), base=base_path if needs_base else None, **settings
        )
    assert ".safetensors" in str(caught.value)
    if error is NonFiniteMemberError:
        assert str(base_path if where == "base" else paths[where]) in caught.value.item
    assert sorted(tmp_path.iterdir()) == before


CALLS = {
    "an unknown method": ({"method": "mean"}, "got 'mean', wanted one of uniform"),
    "no file": ({"paths": []}, "at least one file"),
    "no base": ({"method": "ties", "density": 0.2}, "no base.*--base"),
    "a base too many": ({"base": "base.safetensors"}, "a base is for"),
    "an unknown setting": ({"density": 0.2}, "got 'density', wanted only what 'uniform' takes weights"),
    "a missing setting": ({"method": "dare", "base": "base.safetensors", "density": 0.2}, "no 'seed'"),
    "a name that says nothing": ({"out": "soup.bin"}, r"ends in \.safetensors"),
    "weights of another number": ({"weights": [1.0]}, "1 weights"),
    "weights that sum to 0": ({"weights": [1, -1, 0]}, "sum is 0"),
    "three ends of a line": ({"method": "interpolate", "alpha": 0.5}, "two ends"),
    "a density beyond 1": ({"method": "ties", "base": "base.safetensors", "density": 2}, "density"),
    "a density of 0": ({"method": "dare", "base": "base.safetensors", "density": 0, "seed": 0}, "density"),
    "an unknown scope": ({"method": "ties", "base": "base.safetensors", "density": 1, "scope": "layer"}, "scope"),
    "no finite scale": ({"method": "task_arithmetic", "base": "base.safetensors", "scale": float("nan")}, "scale"),
    "one member's stock": ({"method": "model_stock", "base": "base.safetensors", "paths": [0]}, "at least two"),
    "no finite alpha": ({"method": "slerp", "paths": [0, 1], "alpha": float("inf")}, "alpha"),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_calls_that_mean_nothing_are_refused(call, said, tmp_path):
    _, paths = on_disk(tmp_path, *random_pool())
    call = dict(call)
    if "base" in call:
        call["base"] = tmp_path / call["base"]
    if "paths" in call:
        paths = [paths[index] for index in call.pop("paths")]
    out = tmp_path / call.pop("out", "out.safetensors")
    for dry_run in (True, False):
        with pytest.raises(MergeError, match=said):
            merge_files(paths, out, dry_run=dry_run, **call)
    assert not (tmp_path / "out.safetensors").exists()


def test_the_output_is_never_an_input(tmp_path):
    base_path, paths = on_disk(tmp_path, *random_pool())
    content = paths[1].read_bytes()
    (tmp_path / "link.safetensors").symlink_to(paths[1])
    for out in (paths[1], tmp_path / "link.safetensors", tmp_path / "." / paths[1].name):
        with pytest.raises(CheckpointError, match=f"the input {paths[1]}"):
            merge_files(paths, out)
    with pytest.raises(CheckpointError, match=f"the input {base_path}"):
        merge_files(paths, base_path, "task_arithmetic", base=base_path)
    assert paths[1].read_bytes() == content


def test_an_output_that_cannot_be_is_refused(tmp_path):
    _, paths = on_disk(tmp_path, *random_pool())
    with pytest.raises(CheckpointError, match="no folder"):
        merge_files(paths, tmp_path / "nowhere" / "out.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="got a folder"):
        merge_files(paths, tmp_path / "folder.safetensors")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("step", ["posix_fallocate", "pwrite", "fsync", "replace"])
def test_an_error_of_the_disk_at_any_step_leaves_the_old_output(step, error, tmp_path, monkeypatch):
    _, paths = on_disk(tmp_path, *random_pool())
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    before = sorted(tmp_path.iterdir())

    def fail(*_):
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr(output.os, step, fail)
        with pytest.raises(CheckpointError, match="nothing was written") as caught:
            merge_files(paths, out)
    assert ("Free some space" in caught.value.fix) == (error != errno.EIO)
    assert out.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == before
    merge_files(paths, out)  # the twin


def test_an_input_that_changes_during_the_merge_is_found_out(tmp_path):
    _, paths = on_disk(tmp_path, *random_pool())

    def touch(what, done, total):
        if what == "hashing" and done == 0:
            os.utime(paths[1], ns=(1, 1))

    with pytest.raises(CheckpointError, match=r"m1\.safetensors.*changed while it was read"):
        merge_files(paths, tmp_path / "out.safetensors", progress=touch)
    assert not (tmp_path / "out.safetensors").exists()


def test_an_interrupt_leaves_nothing(tmp_path):
    _, paths = on_disk(tmp_path, *random_pool())
    before = sorted(tmp_path.iterdir())

    def interrupt(what, done, total):
        if what == "merging" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_files(paths, tmp_path / "out.safetensors", progress=interrupt)
    assert sorted(tmp_path.iterdir()) == before


def test_the_values_are_the_float64_reference(tmp_path):
    # Not only those of the functions in memory, which could be wrong together with these.
    base = eighths(0)
    members = [fine_tuned(base, seed) for seed in (1, 2, 3)]
    _, paths = on_disk(tmp_path, base, members)
    merge_files(paths, tmp_path / "out.safetensors")
    for key, got in load_file(tmp_path / "out.safetensors").items():
        arrays = [np.asarray(member[key]) for member in members]
        wanted = arrays[0] if not members[0][key].is_floating_point() else np.mean(np.float64(arrays), axis=0)
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-7)
