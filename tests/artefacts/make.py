"""Make the artefact of this release: `python tests/artefacts/make.py`, once a release, from the root.

It writes `<version>/run`, a small finished run, and `<version>/expected.json`, what it predicts.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["GRAFTWORK_CACHE"] = tempfile.mkdtemp()

from graftwork import __version__
from graftwork.fit import fit, predict
from graftwork.methods import FullFineTuning
from graftwork.testing import learnable, tiny_model

TEXTS = ["the team and the coach", "soup with cheese", "a hotel near the river, long ago", "zzz 42?"]


def main() -> None:
    folder = Path(__file__).parent / __version__
    folder.mkdir()
    with tempfile.TemporaryDirectory() as work:
        run = fit(
            learnable("classification"), model=tiny_model(Path(work) / "tiny"), budget="16steps", coverage=0.8,
            method=FullFineTuning(lr=2e-3, head_lr_factor=2, batch_size=16), out=os.path.relpath(folder / "run"),
            hardware={"device": "cpu", "precision": "fp32"},
        )  # fmt: skip
    (run.path / "report.html").unlink()  # made again from the rest, and larger than all of it
    (folder / "expected.json").write_text(json.dumps({"texts": TEXTS, "answers": predict(run, TEXTS)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
