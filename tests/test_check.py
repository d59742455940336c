from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from broken.make import ERRORS, MANY, WARNINGS, Entry, table

from graftwork.check import CODES, check
from graftwork.choice import InputError
from graftwork.data import DataError


def _checked(entry: Entry, folder: Path):
    source = entry.write(folder)
    options = {"out": folder / entry.check["out"]} if "out" in entry.check else {}
    report = check(source, **options, **entry.load)
    for finding in report.findings:
        assert finding.message.endswith((".", ".)")), finding
        assert finding.fix or finding.severity == "note", finding
        assert len(finding.rows) <= 20
        assert all(isinstance(row, int) for row in finding.rows)
    return report


@pytest.mark.parametrize("entry", ERRORS, ids=lambda entry: entry.name)
def test_broken_data_gives_its_named_error(entry, tmp_path):
    report = _checked(entry, tmp_path)
    assert entry.code in {finding.code for finding in report.errors}, report.findings
    with pytest.raises(InputError, match=entry.code):
        report.require()


@pytest.mark.parametrize("entry", WARNINGS, ids=lambda entry: entry.name)
def test_questionable_data_is_said_and_goes_on(entry, tmp_path):
    report = _checked(entry, tmp_path)
    assert report.ok, report.errors
    assert entry.code in {finding.code for finding in report.findings}, report.findings


def test_the_corpus_covers_every_code_but_those_of_the_hub():
    assert len(ERRORS) >= 40
    assert set(CODES) == {entry.code for entry in (*ERRORS, *WARNINGS)}


def test_a_ragged_line_is_named_by_its_line_in_the_file(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",x\nfine,y\nbad,line,here\n')
    with pytest.raises(DataError, match="line 5 has 3"):
        check(tmp_path / "a.csv", model=None).require()


def test_wrong_bytes_are_named_by_line_and_byte(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\nfine,x\ncaf\xe9,y\n")
    (finding,) = check(tmp_path / "a.csv", model=None).errors
    assert finding.where == "a.csv line 3 byte 4"
    assert "café" in finding.fix


def test_the_ledger_counts_what_truncation_loses_a_class_at_a_time(tmp_path):
    rows = [(f"{text} {'word ' * (600 if label == 'bad' else 1)}", label) for text, label in MANY]
    (tmp_path / "a.csv").write_text(table(rows))
    report = check(tmp_path / "a.csv", validation=0, test=0)
    train = report.ledger["splits"]["train"]
    assert train["rows_cut"] == train["classes"]["bad"]["rows_cut"] == len(rows) // 2
    assert train["classes"]["good"]["tokens_cut"] == 0
    assert train["tokens_cut"] == train["classes"]["bad"]["tokens"] - 512 * len(rows) // 2


def test_a_report_is_json(tmp_path):
    (tmp_path / "a.csv").write_text(table(MANY))
    told = json.loads(json.dumps(check(tmp_path / "a.csv").as_dict()))
    assert told["ok"]
    assert told["summary"]["rows"] == {"train": 76, "validation": 10, "test": 10}
    assert told["data"]["labels"] == ["bad", "good"]


def test_what_is_not_there_is_an_input_error(tmp_path):
    (tmp_path / "train.csv").write_text(table())
    with pytest.raises(InputError, match=r"Did you mean 'train.csv'"):
        check(tmp_path / "trian.csv", model=None)


def test_check_needs_no_torch(tmp_path):
    (tmp_path / "a.csv").write_text(table(MANY))
    code = f"import sys; from graftwork.check import check; check({str(tmp_path / 'a.csv')!r}); "
    code += "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
