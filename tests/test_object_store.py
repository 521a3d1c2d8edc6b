"""The run store in a bucket of a local S3 server, over the network and with nothing mocked in this process."""

import os
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import tiny

from wamlib import chapters, runs, storage, sweeps
from wamlib.errors import CheckpointError, ConfigError, RunNotFoundError, StoreError
from wamlib.runs import RunStore

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("s3") / "log"
    with open(log, "w") as file:
        process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", "0"], stdout=file, stderr=file)
    while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    with pytest.MonkeyPatch.context() as patch:
        names = {"ACCESS_KEY_ID": "any", "SECRET_ACCESS_KEY": "any", "ENDPOINT_URL": found[1]}
        for name, value in (names | {"DEFAULT_REGION": "us-east-1"}).items():
            patch.setenv(f"AWS_{name}", value)
        yield found[1]
    process.kill()
    process.wait()


@pytest.fixture
def url(server):
    """A new bucket's URL."""
    bucket = uuid.uuid4().hex
    urllib.request.urlopen(urllib.request.Request(f"{server}/{bucket}", method="PUT")).close()
    return f"s3://{bucket}/book/runs"


def names(url):
    files, prefix = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return sorted(path[len(prefix) + 1 :] for path in files.find(prefix))


def test_a_run_in_a_bucket_is_the_run_in_a_folder(url, store):
    there, config = RunStore(url), tiny()
    assert config not in there
    with pytest.raises(RunNotFoundError, match="no record in s3://"):
        there[config]
    run, here = there.train(config), store.train(config)
    assert config in there
    torch.testing.assert_close(run.state, here.state, rtol=0, atol=0)
    torch.testing.assert_close(run.logits, here.logits, rtol=0, atol=0)
    assert RunStore(url)[config].record == run.record
    assert run.path == f"{url}/{config.run_id}"
    digest = run.record["checkpoint_sha256"]
    assert digest == here.record["checkpoint_sha256"]
    assert f"{config.run_id}/checkpoint-{digest[:16]}.safetensors" in names(url)
    assert len(names(url)) == 3  # nothing is left of the unfinished training
    assert list(there.table().run_id) == [config.run_id]


def test_many_runs_are_found_by_a_listing_and_read_at_once(url, monkeypatch):
    there, configs = RunStore(url), [tiny(seed=seed, epochs=1) for seed in range(3)]
    for config in configs[:2]:
        there.train(config)
    questions = []
    monkeypatch.setattr(there.storage.files, "exists", questions.append)
    assert there.missing([*configs, *configs]) == [configs[2]]
    assert questions == []
    assert [run.config for run in there.load([configs[1], configs[0], configs[1]])] == [configs[i] for i in (1, 0, 1)]
    with pytest.raises(RunNotFoundError):
        there.load(configs)


def test_a_training_that_was_cut_short_continues_from_the_bucket(url, store, monkeypatch):
    monkeypatch.setattr(storage, "UPLOAD_SECONDS", 0)
    there, config = RunStore(url), tiny(epochs=4)

    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        there.train(config, progress=stop)
    assert names(url) == [f"{config.run_id}/{runs.RESUME}"]
    rows = []
    run = RunStore(url).train(config, progress=rows.append)
    assert [row["epoch"] for row in rows] == [3, 4]
    torch.testing.assert_close(run.state, store.train(config).state, rtol=0, atol=0)
    assert f"{config.run_id}/{runs.RESUME}" not in names(url)


def test_between_uploads_nothing_is_sent(url):
    there, config = RunStore(url), tiny(epochs=4)
    seen = []
    there.train(config, progress=lambda row: seen.append(names(url)))
    assert seen == [[]] * 4  # five minutes have not passed


def test_of_two_that_train_one_run_the_first_record_stands(url):
    """Their clocks and seconds differ, so their records do; both are whole, whichever stands."""
    stores, config = [RunStore(url) for _ in range(2)], tiny(epochs=3)
    with ThreadPoolExecutor(1) as pool:  # the second begins and ends in the middle of the first
        found = []

        def meanwhile(row):
            if row["epoch"] == 2:
                found.append(pool.submit(stores[1].train, config).result().record)

        first = stores[0].train(config, progress=meanwhile).record
    assert found == [first]
    assert stores[0][config].state.keys() == stores[1][config].state.keys()


@pytest.mark.parametrize("part", ["checkpoint", "logits"])
def test_a_flipped_byte_in_a_bucket_is_seen(part, url):
    there, config = RunStore(url), tiny(epochs=1)
    there.train(config)
    (name,) = [name for name in names(url) if f"/{part}-" in name]
    content = bytearray(there.storage.read(name))
    content[len(content) // 2] ^= 1
    there.storage.write(name, bytes(content))
    with pytest.raises(CheckpointError, match=r"wanted sha256 \w+\.\.\., as recorded"):
        _ = there[config].state, there[config].logits


def test_a_failure_is_noted_until_the_run_is_finished(url):
    there, config = RunStore(url), tiny(epochs=1)
    there.note_failure(config, "ValueError: no", "Traceback ...")
    (note,) = there.failures()
    assert (note["run_id"], note["error"], note["config"]) == (config.run_id, "ValueError: no", config.to_dict())
    there.train(config)
    assert there.failures() == []


def test_a_sweep_trains_into_a_bucket_and_chapters_read_it(url, monkeypatch):
    monkeypatch.setenv("WAMLIB_RUNS", url)
    configs = [tiny(seed=seed, epochs=1) for seed in range(2)]
    with ThreadPoolExecutor(2) as executor:
        sweeps.run(configs, executor=executor)
    monkeypatch.setattr("wamlib.sweeps.training.LocalWorkers", None)  # nothing is trained again
    assert [run.record["run_id"] for run in sweeps.run(configs)] == [config.run_id for config in configs]


@pytest.mark.slow
def test_the_command_line_trains_into_a_bucket(url, tmp_path):
    (tmp_path / "params.yml").write_text(
        "{dataset: digits, datasets: [digits], n_linear: 1, n_train: 100, models: [], "
        "linear_epochs: 1, n_replicas: 1, epochs: 2, trunk_epochs: 1, n_pool_members: 2, "
        "template_models: [], wide_models: [], pool_models: [], arm_models: [], protocol_models: [], "
        "many_models: [], flat_models: [], recipe_models: [], pretrained_datasets: []}"
    )
    configs = chapters.all_runs(chapters.read_parameters(tmp_path / "params.yml"))
    n = len({run for config in configs for run in (config, config.start) if run})
    for words in (["sweep", "--params", "params.yml"], ["runs"]):
        words, env = [sys.executable, "-m", "wamlib.cli", *words, "--store", url], {**os.environ, "COLUMNS": "150"}
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
    assert f"{n} finished runs" in done.stdout
    assert len([name for name in names(url) if name.endswith("record.json")]) == n
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "ask", [lambda it: it.train(tiny(epochs=1)), lambda it: it.table(), lambda it: it.missing([tiny()])]
)
def test_a_bucket_that_is_not_there_is_an_error_of_four_parts(ask, server):
    there = RunStore("s3://no-such-bucket-here/runs")
    with pytest.raises(StoreError, match=r"s3://no-such-bucket-here/runs.* bucket does not exist"):
        ask(there)


def test_a_sweep_into_a_bucket_that_is_not_there_begins_nothing(server):
    with pytest.raises(StoreError, match="bucket does not exist"):
        sweeps.run([tiny(epochs=1)], RunStore("s3://no-such-bucket-here/runs"), executor=None)


def test_a_server_that_does_not_answer_is_an_error_of_four_parts(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # one that knows the server
    there = RunStore(f"s3://{uuid.uuid4().hex}/runs")
    with pytest.raises(StoreError, match="cannot look into a store: s3://"):
        assert tiny() in there


@pytest.mark.parametrize("url", ["no-such-protocol://x/y", "s4://bucket/runs"])
def test_a_url_that_nothing_reads_is_refused(url):
    with pytest.raises(ConfigError, match="an object store such as s3://bucket/runs"):
        RunStore(url)


def test_a_file_url_is_a_folder(tmp_path):
    assert RunStore(f"file://{tmp_path}/runs").root == tmp_path / "runs"
