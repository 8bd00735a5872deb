"""The text model: contents of like words, or of like readers, lie together, and the importer makes the same vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from banditmesh.cli.commands import app
from banditmesh.fit.embedding import fit
from banditmesh.retrieval.text import TextModel, words
from banditmesh.runtime.errors import InvalidArgument
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import open_store
from banditmesh.runtime.text_snapshots import TEXT_MODEL, VECTORS

SPORT = ["goal", "match", "team", "coach", "league", "cup"]
MUSIC = ["song", "band", "concert", "album", "guitar", "tour"]


def articles(n: int = 60) -> dict[str, str]:
    """Half of sport, half of music, four words each."""
    rng = np.random.default_rng(1)
    return {f"{at}": " ".join(rng.choice(SPORT if at % 2 else MUSIC, 4)) for at in range(n)}


def test_words_of_one_matter_lie_together_and_an_unknown_word_has_no_place() -> None:
    model = fit(articles(), 2).model
    sport, more_sport, music, nothing = model.vectors(["team goal", "coach league cup", "concert song", "zyxw"])
    assert sport @ more_sport > 0.5 > abs(sport @ music) + 0.2
    assert np.linalg.norm(sport) == pytest.approx(1, abs=1e-5)
    assert not nothing.any()
    same = TextModel.from_tensors(model.tensors())
    np.testing.assert_array_equal(same.vectors(["team goal"])[0], sport)


def test_what_the_same_readers_open_lies_together_though_no_word_is_shared() -> None:
    texts = {f"{at}": f"word{at % 12}" for at in range(48)}
    # Readers of words 0 to 5 read nothing of 6 to 11.
    rng = np.random.default_rng(2)
    opened = [[f"{at}" for at in rng.permutation(48) if at % 12 // 6 == reader % 2][:8] for reader in range(200)]
    fitted = fit(texts, 2, opened=opened)
    assert fitted.opened == 48
    vectors = fitted.model.vectors([f"word{at}" for at in range(12)])
    assert (vectors[0] @ vectors[1:6].T > 0.8).all()
    assert (vectors[0] @ vectors[6:].T < 0.3).all()


def test_too_few_contents_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="10 contents cannot fill 16 dimensions"):
        fit(articles(10), 16)


def test_scripts_without_spaces_are_cut_into_pairs() -> None:
    assert words("Fußball-WM 2026: 東京タワー") == ["fußball", "wm", "2026", "東京", "京タ", "タワ", "ワー"]


async def published(store: str) -> TextModel:
    snapshots = Snapshots(open_store(store), None)
    pointer = await snapshots.pointer(VECTORS, TEXT_MODEL)
    assert pointer is not None
    return TextModel.from_tensors((await snapshots.load(VECTORS, TEXT_MODEL, pointer.version)).tensors)


def test_the_command_publishes_what_the_importer_reads(tmp_path: Path) -> None:
    import asyncio

    path, store = tmp_path / "contents.jsonl", f"file://{tmp_path}/store"
    path.write_text("\n".join(json.dumps({"id": each, "title": text}) for each, text in articles().items()))
    log = tmp_path / "log.jsonl"
    rows = [
        {
            "user": f"u{at % 9}",
            "candidates": [{"id": str(2 * at % 60 + at % 2)}],
            "shown": 0,
            "reward": 1.0,
            "propensity": 0.5,
        }
        for at in range(300)
    ]
    log.write_text("\n".join(map(json.dumps, rows)))
    for more in ([], ["--clicks", str(log)]):
        done = CliRunner().invoke(
            app, ["embed", "fit", str(path), "--store", store, "--dimensions", "4", "--json", *more]
        )
        assert done.exit_code == 0, done.output
    assert json.loads(done.output)["version"] == 2
    assert asyncio.run(published(store)).dimensions == 4
