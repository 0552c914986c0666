"""Push to the Hub: uploaded files, the model card, and refusals."""

import json
from pathlib import Path

import pytest

from dataset.errors import UserError
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from tests.support.train_micro import micro_run
from train.export import PushArgs, hub_api, push
from train.loop.loop import describe


class _Hub:
    """What HfApi would have been asked."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.created, self.files = fails, [], {}

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        if self.fails:
            raise OSError("403 Forbidden")
        self.created.append((repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        paths = [path for path in folder_path.rglob("*") if path.is_file()]
        self.files = {path.relative_to(folder_path).as_posix(): path.read_bytes() for path in paths}


def test_push_uploads_a_diffusers_folder_with_a_card_of_the_run(model_folder: Path, tmp_path: Path) -> None:
    url = make_shard_set(tmp_path / "private" / "set", 3, 32)
    run = micro_run(url, model_folder, 6, stage=2, base=tmp_path / "private" / "stage1")
    (model_folder / "config.json").write_text(json.dumps(describe(run, ShardSet(run.shards))))
    hub = _Hub()
    push(PushArgs(model_folder, "someone/model"), hub)
    assert hub.created == [("someone/model", True, True)]
    wanted = {"unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "image_encoder/config.json"}
    assert wanted | {"model_index.json", "model.json", "README.md"} <= hub.files.keys()
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: diffusers\n")
    assert "MODEL=hf:someone/model" in card
    assert "Stage 2" in card
    assert "| steps | 6 |" in card
    assert "from `stage1`" in card
    assert "`set`: 3 rendered objects" in card
    assert "| license of objects | objects |" in card
    assert describe(run, ShardSet(run.shards))["data"]["sha256"] in card
    assert str(tmp_path) not in card  # where the data lay on this machine is nobody's business


@pytest.mark.parametrize("object_fill", [None, 0.75])
def test_who_takes_the_image_encoder_is_told_that_it_wants_the_object_centered(
    model_folder: Path, capsys: pytest.CaptureFixture[str], object_fill: float | None
) -> None:
    settings = model_folder / "image_tower" / "image_tower.json"
    small = json.loads(settings.read_text())["small"] | {"object_fill": object_fill}
    settings.write_text(json.dumps({"small": small}))
    hub = _Hub()
    push(PushArgs(model_folder, "someone/model"), hub)
    for said in (hub.files["README.md"].decode(), capsys.readouterr().err):
        assert ("75% of the image" in said) == (object_fill is not None)
    assert json.loads(hub.files["image_encoder/config.json"]).get("object_fill") == object_fill


def test_a_card_without_its_data_says_so(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "stage": 1,
        "seed": 0,
        "base": None,
        "data": {"url": str(tmp_path / "gone"), "objects": 5, "sha256": "00"},
        "recipe": {"name": "tiny", "stage1": {"steps": 6, "peak_lr": 1e-4}},
    }
    (model_folder / "config.json").write_text(json.dumps(config))
    hub = _Hub()
    push(PushArgs(model_folder, "someone/model", private=False), hub)
    assert hub.created == [("someone/model", False, True)]
    card = hub.files["README.md"].decode()
    assert "could not be read" in card
    assert "Stage 1, preset `tiny`, seed 0, from scratch" in card
    assert "stage 2" not in card
    both = {**config, "stage": 2, "recipe": {**config["recipe"], "stage2": {"steps": 3}}}
    (model_folder / "config.json").write_text(json.dumps(both))
    push(PushArgs(model_folder, "someone/model"), hub)
    card = hub.files["README.md"].decode()
    assert "Stage 1 and 2, preset `tiny`" in card
    assert "| steps | 6 |" in card
    assert "| steps | 3 |" in card
    assert "; the card does not list licenses" in capsys.readouterr().err


def test_push_says_what_the_hub_said_and_wants_a_token(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="403 Forbidden"):
        push(PushArgs(model_folder, "someone/model"), _Hub(fails=True))
    with pytest.raises(UserError, match="OWNER/NAME"):
        push(PushArgs(model_folder, "model"), _Hub())
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="hf auth login"):
        hub_api()
