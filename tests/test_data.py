from __future__ import annotations

import gzip
import json
import os
import string

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graftwork import formats, splitting, spool
from graftwork.choice import InputError
from graftwork.data import Data, DataError

WORDS = ["red", "green", "blue", "black", "white", "brown", "grey", "pink", "gold", "plain", "old", "new"]
ROWS = [
    {"text": f"{place}, the {word} one {end}", "label": label}
    for place in ("At home", "In the office down by the river", "On holiday")
    for word in WORDS
    for end, label in (("is a joy to use", "good"), ("broke after one day", "bad"))
]
TAGGED = [{"tokens": ["Dr", word, "left", "Paris"], "tags": ["O", "B-PER", "O", "B-LOC"]} for word in WORDS]

# what a CSV cell can hold and give back: no NUL, no lone surrogate, no line end that csv would change
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1, max_size=30)
tables = st.lists(st.tuples(cells, st.sampled_from(["a", "b", "c d"])), min_size=1, max_size=30)


def write(frame: pd.DataFrame, path) -> str:
    writers = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True, force_ascii=False),
        ".json": lambda: frame.to_json(path, orient="records"),
        ".parquet": lambda: frame.to_parquet(path, index=False),
        ".arrow": lambda: frame.to_feather(path),
        ".gz": lambda: frame.to_csv(path, index=False),
    }
    writers[path.suffix]()
    return str(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.arrow", "a.csv.gz"])
def test_every_format_gives_the_same_data(name, tmp_path):
    frame = pd.DataFrame(ROWS)
    data = Data.load(write(frame, tmp_path / name))
    assert data.fingerprint == Data.load(frame).fingerprint
    assert data.labels == ("bad", "good")


@given(rows=tables)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_fingerprint_does_not_depend_on_the_format(rows, tmp_path):
    frame = pd.DataFrame(rows, columns=["text", "label"])
    options = {"text": "text", "label": "label", "validation": 0, "test": 0}
    prints = {Data.load(write(frame, tmp_path / f"a{end}"), **options).fingerprint for end in (".csv", ".parquet")}
    prints.add(Data.load({"train": frame.to_dict("records")}, **options).fingerprint)
    assert len(prints) == 1


@given(rows=tables, size=st.integers(1, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_fingerprint_does_not_depend_on_chunks(rows, size, monkeypatch):
    table = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    options = {"text": "text", "label": "label", "validation": 0, "test": 0}
    whole = Data.load(table, **options).fingerprint
    monkeypatch.setattr(formats, "BATCH_ROWS", size)
    assert Data.load(table, **options).fingerprint == whole


def test_the_fingerprint_changes_with_the_content_the_split_and_the_label():
    rows = [dict(row) for row in ROWS]
    base = Data.load({"train": rows, "validation": rows[:4]}).fingerprint
    moved = Data.load({"train": rows[1:], "validation": [*rows[:4], rows[0]]}).fingerprint
    edited = Data.load({"train": [{**rows[0], "text": "other"}, *rows[1:]], "validation": rows[:4]}).fingerprint
    relabelled = Data.load({"train": [{**rows[0], "label": "bad"}, *rows[1:]], "validation": rows[:4]}).fingerprint
    assert len({base, moved, edited, relabelled}) == 4


texts = st.text(string.ascii_lowercase[:4] + " ", min_size=0, max_size=40)


@given(
    st.lists(texts, min_size=2, max_size=40).flatmap(lambda found: st.lists(st.sampled_from(found), max_size=60)),
    st.integers(0, 3),
    st.sampled_from([0.1, 0.3, 0.5]),
)
def test_a_cut_never_separates_texts_that_say_the_same(found, seed, share):
    column = pa.chunked_array([found], pa.string())
    groups = splitting.groups([column])
    strata = np.array([len(text) % 2 for text in found], np.int64)
    leaves = splitting.cut(strata, groups, share, seed)
    assert not set(groups[leaves]) & set(groups[~leaves])
    keys = splitting.keys(column)
    assert not set(keys[leaves]) & set(keys[~leaves])


@given(st.lists(texts, min_size=2, max_size=12))
def test_near_identical_texts_are_one_group(found):
    groups = splitting.groups([pa.chunked_array([found], pa.string())])
    clean = [splitting.normalise(text) for text in found]
    for i, one in enumerate(clean):
        for j, two in enumerate(clean[:i]):
            if one == two:
                assert groups[i] == groups[j]
            elif splitting.jaccard(one, two) < 0.3 and len(clean) == 2:
                assert groups[i] != groups[j]


def test_minhash_finds_texts_that_differ_by_a_word():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list(string.ascii_lowercase), 7)) for _ in range(2000)]
    long = [" ".join(rng.choice(words, 40)) for _ in range(200)]
    twins = [f"{text[:150]} other {text[150:]}" for text in long]
    groups = splitting.groups([pa.chunked_array([long, twins])])
    alike = [splitting.jaccard(a, b) >= splitting.NEAR for a, b in zip(long, twins, strict=True)]
    found = groups[:200] == groups[200:]
    assert found[np.array(alike)].mean() > 0.95
    assert len(np.unique(groups)) == 400 - found.sum()


def test_the_estimate_decides_past_the_verified_pairs(monkeypatch):
    monkeypatch.setattr(splitting, "VERIFIED", 0)
    column = pa.chunked_array([["a text that is said twice, nearly " * 5 + end for end in ("", "!", "?")]])
    assert len(np.unique(splitting.groups([column]))) == 1


def test_a_cut_is_stratified_and_repeatable():
    data = Data.load({"train": ROWS}, validation=0.25)
    again = Data.load({"train": ROWS}, validation=0.25)
    other = Data.load({"train": ROWS}, validation=0.25, seed=1)
    assert data["validation"].counts == {"bad": 9, "good": 9}
    assert data.fingerprint == again.fingerprint != other.fingerprint
    assert sorted([*data["train"].rows, *data["validation"].rows]) == list(range(1, 73))


def test_given_splits_stay_as_they_are(tmp_path):
    for name, rows in (("train", ROWS), ("dev", ROWS[:3]), ("test", ROWS[3:9])):
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    data = Data.load(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 72, "validation": 3, "test": 6}
    assert data["validation"].inputs() == [row["text"] for row in ROWS[:3]]


def test_a_folder_with_splits_gets_no_test_of_its_own(tmp_path):
    pd.DataFrame(ROWS).to_csv(tmp_path / "train.csv", index=False)
    assert "test" not in Data.load(tmp_path)
    assert "test" in Data.load(tmp_path / "train.csv")
    assert "test" not in Data.load(tmp_path / "train.csv", test=0)


def test_shards_of_a_split_are_one_and_rows_count_on(tmp_path):
    (tmp_path / "data").mkdir()
    for shard in range(2):
        table = pa.Table.from_pylist(ROWS[shard * 36 : (shard + 1) * 36])
        pq.write_table(table, tmp_path / "data" / f"train-0000{shard}-of-00002.parquet")
    data = Data.load(tmp_path, validation=0)
    assert data["train"].rows.tolist() == list(range(1, 73))


def test_class_numbers_become_names_in_folders_of_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"]))
    rows = [{"text": row["text"], "label": int(row["label"] == "good")} for row in ROWS]
    saved = datasets.Dataset.from_list(rows, features=features)
    datasets.DatasetDict(train=saved, test=saved.select(range(5))).save_to_disk(str(tmp_path / "saved"))
    data = Data.load(tmp_path / "saved")
    assert data.labels == ("no", "yes")
    assert len(data["test"]) == 5
    saved.to_parquet(str(tmp_path / "train.parquet"))
    assert Data.load(tmp_path / "train.parquet").labels == ("no", "yes")
    assert Data.load(saved).labels == ("no", "yes")


def test_the_hub_is_asked_for_owner_and_name(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    pd.DataFrame(ROWS).to_csv(tmp_path / "train.csv", index=False)
    load, asked = datasets.load_dataset, []

    def local(name, config):
        asked.append((name, config))
        return load("csv", data_files={"train": str(tmp_path / "train.csv")}, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    data = Data.load("somebody/reviews:english")
    assert asked == [("somebody/reviews", "english")]
    assert (len(data["train"]) + len(data["validation"]), data.name) == (72, "reviews")


@pytest.mark.parametrize("source", ["trian.csv", "somebody/trian.csv", "./trian", "bank77", "a/b/c"])
def test_what_is_not_there_is_said_at_once(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="There is no"):
        Data.load(source)


def test_a_typing_error_gets_the_file_that_was_meant(tmp_path):
    pd.DataFrame(ROWS).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(InputError, match=r"Did you mean 'train\.csv'"):
        Data.load(tmp_path / "trian.csv")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"validation": 0.9}, r"validation must be a share in \[0, 0\.5\]"),
        ({"drop": ["emty"]}, "Did you mean 'empty'"),
        ({"task": "clasification"}, "Did you mean 'classification'"),
        ({"limit": 0}, "limit must be"),
        ({"text": "txt"}, "Did you mean 'text'"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(options, match):
    with pytest.raises(InputError, match=match):
        Data.load({"train": ROWS}, **options)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 1], ("0", "1")),
        ([1.0, 2.0], ("1", "2")),
        ([True, False], ("false", "true")),
        (["1.0", "2.0"], ("1", "2")),
        (["1.5", "2.0"], ("1.5", "2.0")),
    ],
)
def test_labels_that_are_no_text_become_text(values, names, tmp_path):
    frame = pd.DataFrame([{"text": row["text"], "label": values[i % 2]} for i, row in enumerate(ROWS)])
    assert Data.load(frame).labels == names
    assert (
        Data.load(write(frame, tmp_path / "a.csv")).labels == tuple(name.title() for name in names)
        or True not in values
    )


def test_columns_are_found_by_name_then_by_content_and_said():
    rows = [{"id": i, "remark": row["text"], "verdict": row["label"]} for i, row in enumerate(ROWS)]
    data = Data.load({"train": rows})
    assert (data.columns.text, data.columns.label) == ("remark", "verdict")
    assert any("'verdict' is the label: 2 distinct values" in sentence for sentence in data.said)
    assert [finding.code for finding in data.findings] == ["guessed-column"] * 2


def test_several_labels_a_row_come_as_lists_or_joined():
    joined = [{"text": row["text"], "labels": ("a | b", "b", "a")[i % 3]} for i, row in enumerate(ROWS)]
    listed = [{"text": row["text"], "labels": row["labels"].split(" | ")} for row in joined]
    data = Data.load({"train": joined}, validation=0)
    assert data.multi_label
    assert data.labels == ("a", "b")
    assert data["train"].labels([0, 1]) == [["a", "b"], ["b"]]
    assert data.fingerprint == Data.load({"train": listed}, validation=0).fingerprint
    assert not Data.load({"train": joined}, multi_label=False).multi_label


def test_words_and_tags_come_as_lists_or_spaced():
    spaced = [{"tokens": " ".join(row["tokens"]), "tags": " ".join(row["tags"])} for row in TAGGED]
    data = Data.load({"train": TAGGED}, validation=0)
    assert (data.task, data.labels) == ("tagging", ("O", "B-LOC", "B-PER"))
    assert data["train"].inputs([1]) == [["Dr", "green", "left", "Paris"]]
    assert data.fingerprint == Data.load({"train": spaced}, task="tagging", validation=0).fingerprint


def test_frames_with_arrays_and_missing_cells_are_read(tmp_path):
    pd.DataFrame(TAGGED).to_parquet(tmp_path / "a.parquet")
    frame = pd.read_parquet(tmp_path / "a.parquet")  # its cells are numpy arrays
    assert Data.load(frame, validation=0, test=0).fingerprint == Data.load(TAGGED, validation=0, test=0).fingerprint
    mixed = pd.DataFrame({"text": ["a", None, pd.NA, float("nan")], "label": [np.int64(1), 2, 1, 2]}, dtype=object)
    train = Data.load(mixed, validation=0, test=0)["train"]
    assert (train.inputs(), train.labels()) == (["a", "", "", ""], ["1", "2", "1", "2"])


def test_nothing_is_removed_unless_asked_and_then_counted(tmp_path):
    rows = [*ROWS, {"text": " ", "label": "good"}, ROWS[0], {**ROWS[2], "label": "bad"}]
    source = {"train": rows, "test": ROWS[4:6]}
    kept = Data.load(source, validation=0)
    assert (len(kept["train"]), dict(kept.dropped)) == (75, {})
    fewer = Data.load(source, validation=0, drop=["empty", "duplicates", "conflicts", "overlap"])
    assert dict(fewer.dropped) == {"empty": 1, "conflicts": 2, "duplicates": 1, "overlap": 2}
    assert len(fewer["train"]) == 75 - 6
    assert fewer["train"].inputs() == [row["text"] for row in (*ROWS[:2], ROWS[3], *ROWS[6:])]


def test_ragged_lines_go_only_when_asked(tmp_path):
    good = pd.DataFrame(ROWS).to_csv(index=False)
    (tmp_path / "a.csv").write_text(good + "one,two,three,four\n")
    with pytest.raises(DataError, match="ragged-line"):
        Data.load(tmp_path / "a.csv")
    data = Data.load(tmp_path / "a.csv", drop=["ragged"], validation=0, test=0)
    assert (len(data["train"]), data.dropped["ragged"]) == (72, 1)


def test_a_limit_draws_that_many_train_rows():
    data = Data.load({"train": ROWS}, validation=0, limit=11)
    assert len(data["train"]) == 11
    assert abs(data["train"].counts["good"] - 5.5) <= 1
    assert data.dropped["limit"] == 61


def test_a_target_domain_comes_without_labels(tmp_path):
    pd.DataFrame({"text": ["one", "two"]}).to_csv(tmp_path / "train.csv", index=False)
    data = Data.load({"train": ROWS}, target=tmp_path)
    assert data["target"].inputs() == ["one", "two"]
    assert data["target"].labels() == ["", ""]


def test_the_source_loads_the_same_again(tmp_path, monkeypatch):
    path = write(pd.DataFrame(ROWS), tmp_path / "a.csv")
    monkeypatch.chdir(tmp_path)
    data = Data.load("a.csv", seed=3, drop=["duplicates"], limit=20)
    monkeypatch.chdir("/")
    told = json.loads(json.dumps(data.source))
    assert told["source"] == os.path.realpath(path)
    assert Data.load(**told).fingerprint == data.fingerprint


def test_data_in_memory_says_that_it_cannot_be_read_again():
    data = Data.load(pd.DataFrame(ROWS))
    with pytest.raises(InputError, match="DataFrame in memory"):
        Data.load(**data.source)


@pytest.mark.parametrize("rows", [ROWS, TAGGED], ids=["classification", "tagging"])
def test_saved_data_opens_the_same(rows, tmp_path):
    data = Data.load({"train": rows, "test": rows[:3]}, validation=0)
    opened = Data.open(data.save(tmp_path / "saved"))
    assert opened.fingerprint == data.fingerprint
    assert (opened.said, opened.labels, opened.task) == (data.said, data.labels, data.task)
    assert Data.load(tmp_path / "saved").fingerprint == data.fingerprint
    with pytest.raises(InputError, match="not empty"):
        data.save(tmp_path)


def test_saved_data_that_was_changed_is_refused(tmp_path):
    folder = Data.load({"train": ROWS}).save(tmp_path / "saved")
    Data.load({"train": ROWS[2:]}).save(tmp_path / "other")
    os.replace(tmp_path / "other" / "train.arrow", folder / "train.arrow")
    with pytest.raises(InputError, match="changed after it was saved"):
        Data.open(folder)


def test_what_does_not_fit_in_memory_is_mapped_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY", 1000)
    monkeypatch.setattr(formats, "BATCH_ROWS", 10)
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    data = Data.load(write(pd.DataFrame(ROWS), tmp_path / "a.csv"))
    assert sum(len(split) for split in data.splits.values()) == 72
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    monkeypatch.undo()
    assert Data.load(tmp_path / "a.csv").fingerprint == data.fingerprint


def test_batches_go_through_a_split_in_order():
    train = Data.load({"train": ROWS}, validation=0)["train"]
    found = [text for inputs, _ in train.batches(7) for text in inputs]
    assert found == train.inputs() == [row["text"] for row in ROWS]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_understood(encoding, tmp_path):
    (tmp_path / "a.csv").write_bytes(pd.DataFrame(ROWS).to_csv(index=False).replace("joy", "schön").encode(encoding))
    assert "schön" in Data.load(tmp_path / "a.csv", validation=0, test=0)["train"].inputs()[0]


def test_compressed_json_lines_are_read(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    assert len(Data.load(tmp_path / "a.jsonl.gz", validation=0, test=0)["train"]) == 72


def test_words_for_nothing_stay_words(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{w},{w}\n" for w in ("NA", "null", "nan", "None")))
    assert Data.load(tmp_path / "a.csv", validation=0, test=0)["train"].inputs() == ["NA", "null", "nan", "None"]


def test_shots_keep_so_many_rows_of_each_class_and_fewer_are_a_part_of_more():
    rows = [{"text": f"text number {i} of many", "label": "abc"[i % 3]} for i in range(90)]
    source = {"train": rows, "validation": rows[:3], "test": rows[:3]}
    few, more = Data.load(source, shots=2), Data.load(source, shots=20)
    assert few["train"].counts == {"a": 2, "b": 2, "c": 2}
    assert more["train"].counts == {"a": 20, "b": 20, "c": 20}
    assert set(few["train"].inputs()) < set(more["train"].inputs())
    assert few.dropped == {"shots": 84}
    assert Data.load(source, shots=2).fingerprint == few.fingerprint != Data.load(source, shots=2, seed=1).fingerprint


@pytest.mark.parametrize(("asked", "told"), [(0, "from 1 on"), (2, "one class a text")])
def test_shots_that_make_no_sense_are_refused(asked, told):
    rows = [{"text": f"text number {i}", "label": ["a", "b"][: i % 2 + 1]} for i in range(20)]
    with pytest.raises(InputError, match=told):
        Data.load({"train": rows, "validation": rows[:2]}, shots=asked)


def test_saved_data_is_read_again_from_its_folder_also_with_fewer_shots(tmp_path):
    rows = [{"text": f"text number {i} of many", "label": "ab"[i % 2]} for i in range(40)]
    folder = Data.load({"train": rows, "validation": rows[:4]}, shots=9).save(tmp_path / "saved")
    opened = Data.load(folder)
    assert Data.load(**opened.source).fingerprint == opened.fingerprint
    fewer = opened.few(3)
    assert fewer["train"].counts == {"a": 3, "b": 3}
    assert Data.load(**fewer.source).fingerprint == fewer.fingerprint


NAMED = [{"text": f"text number {i} of many", "label": ("lost_card", "newPin")[i % 2]} for i in range(40)]


def test_the_name_of_each_class_is_one_more_train_text_of_it():
    source = {"train": NAMED, "validation": NAMED[:4], "test": NAMED[4:8]}
    plain, named = Data.load(source, shots=5), Data.load(source, shots=5, class_names=True)
    own = named["train"].rows == 0
    added = zip(named["train"].where(own).inputs(), named["train"].where(own).labels(), strict=True)
    assert dict(added) == {"lost card": "lost_card", "new Pin": "newPin"}
    assert named["train"].where(~own).inputs() == plain["train"].inputs()
    assert named["test"].inputs() == plain["test"].inputs()
    assert named.fingerprint != plain.fingerprint
    assert "2 class names of 2 are texts of train" in named.said[-1]


def test_class_names_stay_with_fewer_shots_and_are_not_added_twice(tmp_path):
    named = Data.load({"train": NAMED, "validation": NAMED[:4]}, class_names=True)
    assert named.few(3)["train"].counts == {"lost_card": 4, "newPin": 4}
    opened = Data.load(named.save(tmp_path / "saved"), class_names=True)
    assert opened.fingerprint == named.fingerprint == Data.load(**opened.source).fingerprint


def test_a_class_name_that_stands_in_a_held_out_split_is_not_learned_from():
    held = [*NAMED[:2], {"text": "Lost card", "label": "lost_card"}]
    named = Data.load({"train": NAMED, "validation": held}, class_names=True)
    assert "lost card" not in named["train"].inputs()
    assert "new Pin" in named["train"].inputs()


def test_several_labels_a_text_have_names_too():
    rows = [{"text": f"text {i} of many", "label": ["joy", "anger"][: i % 2 + 1]} for i in range(20)]
    named = Data.load({"train": rows, "validation": rows[:2]}, class_names=True)["train"]
    assert named.where(named.rows == 0).labels() == [["anger"], ["joy"]]


def test_class_names_that_are_no_words_are_refused():
    rows = [{"text": f"text number {i}", "label": str(i % 2)} for i in range(20)]
    with pytest.raises(InputError, match="'0' says nothing in words"):
        Data.load({"train": rows, "validation": rows[:2]}, label="label", class_names=True)


def test_a_target_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "target.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read as a text in UTF-8"):
        Data.load({"train": NAMED, "validation": NAMED[:4]}, target=tmp_path / "target.txt")
