"""Protects the reading of data: one bad row costs one row, one bad source costs one clear line.

Users point this at folders that they made themselves, so the adversary is an ordinary mistake.
"""

import csv
import json
import subprocess
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from image2cad.common.errors import InputError
from image2cad.common.gencad import QUESTION
from image2cad.data.row_groups import grouped_rows
from image2cad.data.rows import load_rows
from image2cad.data.samples import Sample, load_samples, split_samples

BOX = 'import cadquery as cq\nresult = cq.Workplane("XY").box(1, 2, {})\n'


def write_folder(folder, rows):
    """An image folder: a picture a row (unless the row's picture is given) and metadata.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        picture = folder / row["file_name"]
        if not picture.exists():
            Image.new("RGB", (20, 10), "red").save(picture)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


def row(number, code=None, **more):
    return {"file_name": f"p{number}.png", "cadquery": code or BOX.format(number), **more}


def load(source, **options):
    return load_samples(source, progress=False, **options)


def test_every_broken_row_is_named_and_the_others_stay(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "p1.png")
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).save(whole)
    (tmp_path / "p2.png").write_bytes(whole.read_bytes()[:600])  # broken off in the pixels
    (tmp_path / "p3.png").write_text("not a picture")
    (tmp_path / "p4.png").write_bytes(b"")
    rows = [row(number, deepcad_id=f"000{number}") for number in range(1, 14)]
    rows[4]["cadquery"] = None
    rows[5]["cadquery"] = "none"
    rows[6]["cadquery"] = " \n"
    rows[7]["cadquery"] = 'import cadquery as cq\nresult = cq.Workplane("XY").box(1, 2'
    rows[8]["cadquery"] = "result = 1 / 0"
    rows[9]["cadquery"] = "x = 3"
    rows[10]["deepcad_id"] = "0001"
    source = write_folder(tmp_path, rows)
    (tmp_path / "p12.png").unlink()

    samples, rejected = load(source)

    assert [sample.id for sample in samples] == ["0001", "00013"]
    reasons = {item.id: item.reason for item in rejected}
    assert len(rejected) == 11
    for number in (2, 3, 4, 12):
        assert reasons[f"000{number}"].startswith("unreadable picture")
    for number in (5, 6, 7):
        assert reasons[f"000{number}"] == "no code"
    for number in (8, 9, 10):
        assert reasons[f"000{number}"].startswith("code does not run: ")
    assert "ZeroDivisionError" in reasons["0009"] and "line 1" in reasons["0009"]
    assert reasons["0001"] == "an earlier row has the same id"
    assert all("\n" not in reason for reason in reasons.values())
    assert samples[0].image.mode == "RGB"
    assert samples[0].image.getpixel((0, 0)) == (255, 255, 255)  # see-through reads as paper
    assert samples[0].prompt == QUESTION
    with pytest.raises(InputError, match=r"2 usable rows, 5 are needed; left out: 4 x unreadable"):
        load(source, at_least=5)


def test_a_limit_counts_usable_rows_and_a_slice_counts_all(tmp_path):
    rows = [row(number) for number in range(1, 9)]
    rows[0]["cadquery"] = rows[2]["cadquery"] = "none"
    source = write_folder(tmp_path, rows)
    assert [s.id for s in load(source, limit=3, check_code=False)[0]] == ["p2", "p4", "p5"]
    first, rejected = load(source, split="train[:3]", check_code=False)
    assert [s.id for s in first] == ["p2"] and len(rejected) == 2
    assert [s.id for s in load(source, split="train[5:7]", check_code=False)[0]] == ["p6", "p7"]


def test_splits_are_subfolders(tmp_path):
    write_folder(tmp_path / "train", [row(1), row(2)])
    write_folder(tmp_path / "test", [row(3)])
    assert [s.id for s in load(str(tmp_path), check_code=False)[0]] == ["p1", "p2"]
    assert [s.id for s in load(str(tmp_path), split="test", check_code=False)[0]] == ["p3"]
    with pytest.raises(InputError, match="no split 'validation'; it has: test, train"):
        load(str(tmp_path), split="validation")


def test_a_csv_keeps_leading_zeros(tmp_path):
    source = write_folder(tmp_path, [row(1), row(2)])
    (tmp_path / "metadata.jsonl").unlink()
    with (tmp_path / "metadata.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "deepcad_id", "cadquery"])
        writer.writerow(["p1.png", "00014960", BOX.format(1)])
        writer.writerow(["p2.png", "00014961", ""])
    samples, rejected = load(source, check_code=False)
    assert [(s.id, s.cadquery) for s in samples] == [("00014960", BOX.format(1))]
    assert [(r.id, r.reason) for r in rejected] == [("00014961", "no code")]


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "rows.parquet"])
def test_parquet_as_the_hub_stores_it(tmp_path, name):
    pixels = np.zeros((5, 6, 3), np.uint8)
    good = Image.fromarray(pixels)
    table = datasets.Dataset.from_dict(
        {
            "image": [good, {"bytes": b"broken", "path": "b.png"}],
            "deepcad_id": ["00000007", "00000008"],
            "cadquery": [BOX.format(1), BOX.format(2)],
            "prompt": ["Write it.", "Write it."],
            "hundred_subset": [False, True],
        },
        features=datasets.Features(
            {
                "image": datasets.Image(),
                "deepcad_id": datasets.Value("string"),
                "cadquery": datasets.Value("string"),
                "prompt": datasets.Value("string"),
                "hundred_subset": datasets.Value("bool"),
            }
        ),
    )
    (tmp_path / name).parent.mkdir(exist_ok=True)
    table.to_parquet(tmp_path / name)
    samples, rejected = load(str(tmp_path), check_code=False)
    assert [(s.id, s.prompt, s.image.size) for s in samples] == [("00000007", "Write it.", (6, 5))]
    assert [r.id for r in rejected] == ["00000008"]


def test_marks_in_text_are_read_as_what_they_say(tmp_path):
    columns = {
        "image": [None] * 4,
        "cadquery": [BOX.format(n) for n in range(4)],
        "hundred_subset": ["False", "True", "False", "true"],
    }
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "test.parquet")
    files = [str(tmp_path / "test.parquet")]
    assert [number for number, _ in grouped_rows(files, first="hundred_subset")] == [1, 3, 0, 2]


def test_further_pictures_of_a_part_are_views(tmp_path):
    rows = [row(1, image_1_file_name="p3.png", image_2_file_name="p4.png"), row(2)]
    rows[1]["image_1_file_name"] = None
    source = write_folder(tmp_path / "folder", rows)
    for number, side in ((3, 30), (4, 40)):
        Image.new("L", (side, side)).save(tmp_path / "folder" / f"p{number}.png")
    whole = [(s.id, [v.size for v in s.views]) for s in load(source, check_code=False)[0]]
    assert whole == [("p1", [(30, 30), (40, 40)]), ("p2", [])]
    assert isinstance(load(source, check_code=False)[0][0].pictures, list)

    (tmp_path / "folder" / "metadata.jsonl").unlink()
    with (tmp_path / "folder" / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "image_1_file_name", "cadquery"])
        writer.writerow(["p1.png", "p3.png", BOX.format(1)])
    [one] = load(source, check_code=False)[0]
    assert [view.size for view in one.views] == [(30, 30)]

    pictures = [Image.new("RGB", (8, 8)), Image.new("RGB", (9, 9))]
    table = datasets.Dataset.from_dict(
        {"image": pictures, "image_1": pictures[::-1], "cadquery": [BOX.format(n) for n in (1, 2)]}
    )
    (tmp_path / "parquet").mkdir()
    table.to_parquet(tmp_path / "parquet" / "rows.parquet")
    found = load_rows(str(tmp_path / "parquet"), tmp_path / "rows", 2, 0, 0, check_code=False)
    seen = [[s.image.size, s.views[0].size] for s in found.train]
    assert seen == [[(8, 8), (9, 9)], [(9, 9), (8, 8)]]
    assert [sizes for _, sizes, _ in found.train.outlines()] == [((8, 8), (9, 9)), ((9, 9), (8, 8))]


def test_every_bad_source_is_one_clear_line(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = tmp_path / "bare"
    bare.mkdir()
    Image.new("RGB", (4, 4)).save(bare / "a.png")
    broken = tmp_path / "broken"
    write_folder(broken, [row(1)])
    with (broken / "metadata.jsonl").open("a") as file:
        file.write("{oops\n")
    no_code = write_folder(tmp_path / "no_code", [{"file_name": "p1.png", "code": "x"}])
    no_file = tmp_path / "no_file"
    no_file.mkdir()
    (no_file / "metadata.jsonl").write_text('{"image": "a.png", "cadquery": "x"}\n')
    outside = write_folder(tmp_path / "outside", [row(1)])
    (tmp_path / "outside" / "metadata.jsonl").write_text(
        '{"file_name": "../bare/a.png", "cadquery": "x = 1"}\n'
    )
    other = tmp_path / "other"
    other.mkdir()
    datasets.Dataset.from_dict({"picture": ["a"], "code": ["b"]}).to_parquet(other / "a.parquet")

    messages = {
        str(tmp_path / "missing"): "there is no folder",
        str(bare / "a.png"): "is not a folder",
        str(empty): "is empty",
        str(bare): r"has no metadata\.jsonl or metadata\.csv and no parquet files",
        str(broken): r"metadata\.jsonl, line 2: not JSON",
        no_code: "no column 'cadquery'; it has: file_name, code",
        str(no_file): "no column 'file_name'; it has: image, cadquery",
        outside: r"cannot read .*file_name",
        str(other): "no column 'image' and no column 'cadquery'; it has: picture, code",
        "CADCODER/GenCAD-Code": "cannot read CADCODER/GenCAD-Code.* from the hub.*reach",
    }
    for source, message in messages.items():
        with pytest.raises(InputError, match=message) as caught:
            load(source)
        assert "\n" not in str(caught.value), source
    with pytest.raises(InputError, match="from the hub"):
        load("CADCODER/GenCAD-Code", split="train[:5]")
    with pytest.raises(InputError, match="cannot read the split 'train:30'"):
        load(str(empty.parent / "no_code"), split="train:30")


def test_a_recipe_shows_the_line_and_leaves_with_2(tmp_path):
    program = (
        "import sys\n"
        "from image2cad.common.errors import run_cli\n"
        "from image2cad.data.samples import load_samples\n"
        "run_cli(lambda: load_samples(sys.argv[1]) and None)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "missing")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: there is no folder")
    assert "Traceback" not in done.stderr


def test_held_out_parts_are_really_unseen():
    picture = Image.new("RGB", (1, 1))
    samples = [Sample(picture, BOX.format(n // 2 if n < 20 else n), f"{n:05}") for n in range(40)]
    train, held_out = split_samples(samples, 11, seed=1)
    assert len(held_out) == 11 and len(train) == 29
    assert not {s.cadquery for s in train} & {s.cadquery for s in held_out}
    assert {s.id for s in train} | {s.id for s in held_out} == {s.id for s in samples}
    again = split_samples(samples[::-1], 11, seed=1)[1]
    assert [s.id for s in again[::-1]] == [s.id for s in held_out]
    assert {s.id for s in split_samples(samples, 11, seed=2)[1]} != {s.id for s in held_out}
    with pytest.raises(InputError, match="lower the number"):
        split_samples(samples, 40)


def test_real_rows(gencad_dev):
    samples, rejected = load(str(gencad_dev), split="train[:6]")
    assert len(samples) == 6 and not rejected
    assert {sample.image.size for sample in samples} == {(448, 448)}
    assert all(sample.id.isdigit() and len(sample.id) == 8 for sample in samples)
