"""Folders of pictures: SPLIT/CLASS/... or CLASS/..., whose names say what a table's columns would."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from graftwork.finding import Kind, number
from graftwork.formats import SPLIT_NAMES, Reading
from graftwork.picture import is_picture

UNUSED_PICTURES = Kind("unused-pictures", "warning", "Pictures lie beside the folders of splits and are not read.")


def pictures_in(folder: Path) -> list[Path]:
    """Every picture of a folder and of those inside it, hidden ones left out, in order of their paths."""
    found = (path for path in folder.rglob("*") if is_picture(path.name) and path.is_file())
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))


def splits_in(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each split, by the names of the folders in `folder`; "" for those in none.

    Without a folder of train, all are in none.
    """
    known = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
    found: dict[str, list[Path]] = defaultdict(list)
    for path in pictures_in(folder):
        place = path.relative_to(folder).parts
        found[known.get(place[0].lower(), "") if len(place) > 1 else ""].append(path)
    if found and "train" not in found:
        return {"": sorted(path for paths in found.values() for path in paths)}
    return dict(found)


def picture_rows(folder: Path, reading: Reading) -> dict[str, list[dict[str, str]]]:
    """Rows of `picture`, an absolute path, and `label`, the folder below the split's, of each split; empty for none.

    A picture that lies in no class has no label. Without splits everything is train, to be cut.
    """
    folder = folder.resolve()
    splits = splits_in(folder)
    if list(splits) == [""]:
        reading.lone = True
        return {"train": [_row(path, folder) for path in splits[""]]}
    if beside := splits.pop("", []):
        message = f"{number(len(beside), 'picture')} beside the splits of {folder.name}, such as {beside[0]}, not read."
        reading.findings.append(UNUSED_PICTURES(message, fix="Put them into the folder of a split and a class."))
    homes = {split: folder / paths[0].relative_to(folder).parts[0] for split, paths in splits.items()}
    return {split: [_row(path, homes[split]) for path in splits[split]] for split in SPLIT_NAMES if split in splits}


def _row(path: Path, home: Path) -> dict[str, str]:
    place = path.relative_to(home).parts
    return {"picture": str(path), "label": place[0] if len(place) > 1 else ""}
