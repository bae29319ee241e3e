"""Images in every format that people have are read; what no dataset stores becomes PNG."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from cifarray.data.decode import FORMATS, SUFFIXES_OF, decode, decode_file
from cifarray.data.ingest import Ingest, prepare
from cifarray.data.parquet import read_columns, read_images
from cifarray.data.readers.base import is_image
from cifarray.data.verify import verify_dataset
from cifarray.store import Store
from tests.image_archives import SIZES, encoded, picture, write_folder

LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
FOLDER = Ingest("imagefolder")


def images_of(form: str, suffix: str) -> dict[str, bytes]:
    return {
        f"{split}/{name}/{number}{suffix}": encoded(
            picture(label, number, SIZES[number % 3]), form, **LOSSLESS.get(form, {})
        )
        for split in ("train", "test")
        for label, name in enumerate(("cat", "dog"))
        for number in range(3)
    }


@pytest.mark.parametrize(
    ("form", "suffix"), [(form, suffix) for form in FORMATS for suffix in SUFFIXES_OF[form]]
)
def test_every_format_is_read_and_keeps_its_pixels(
    form: str, suffix: str, local_store: Store, tmp_path: Path
):
    assert form != "AVIF" or features.check("avif"), "this Pillow has no AVIF"
    assert is_image(f"x{suffix.upper()}")
    files = images_of(form, suffix)
    given = write_folder(tmp_path / "given", files)
    manifest, _ = prepare(local_store, "mine", str(given), how=FOLDER)
    assert (manifest.splits["train"].rows, manifest.left_out) == (6, ())
    assert manifest.source.complete
    converted = {} if form in ("JPEG", "PNG") else {form: 12}
    assert manifest.source.converted_images == converted
    assert verify_dataset(local_store, "mine") == []
    table = read_columns(local_store, manifest, "train", ["image", "row_id"]).sort_by("row_id")
    for name, stored in zip(sorted(n for n in files if "train" in n), table["image"], strict=True):
        content = stored.as_py()
        assert (content == files[name]) == (form in ("JPEG", "PNG"))
        expected = np.asarray(decode_file(files[name]).image)
        assert np.array_equal(np.asarray(decode(content)), expected)
    assert read_images(local_store, manifest, "test", range(6), 16).shape == (6, 16, 16, 3)


def test_the_first_frame_of_an_animation_is_read_and_the_others_are_counted(
    local_store: Store, tmp_path: Path
):
    files = images_of("GIF", ".gif")
    frames = [Image.new("RGB", (30, 20), shade) for shade in ("red", "green", "blue")]
    files["train/cat/0.gif"] = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    given = write_folder(tmp_path / "given", files)
    manifest, _ = prepare(local_store, "mine", str(given), how=FOLDER)
    (entry,) = manifest.left_out or ()
    assert (entry.kind, entry.split, entry.count) == ("frame", "train", 1)
    first = read_images(local_store, manifest, "train", [0], 20)
    assert np.array_equal(first[0], np.broadcast_to([255, 0, 0], (20, 20, 3)))


def test_a_tiff_of_sixteen_bits_keeps_its_shades():
    shades = (np.arange(30, dtype=np.uint16).reshape(5, 6) * 2184).astype(np.uint16)
    found = decode_file(encoded(Image.fromarray(shades), "TIFF"))
    assert (found.format, found.image.mode) == ("TIFF", "L")
    assert np.array_equal(np.asarray(found.image), shades // 257)


@pytest.mark.parametrize("form", ["WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1"])
def test_what_is_stored_decodes_to_the_pixels_of_the_file(
    form: str, mode: str, local_store: Store, tmp_path: Path
):
    image = picture(0, 0, (24, 32)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    files = images_of("PNG", ".png")
    content = encoded(image, form, **LOSSLESS.get(form, {}))
    given = write_folder(tmp_path / "given", files | {"train/cat/0.png": content})
    manifest, _ = prepare(local_store, "mine", str(given), how=FOLDER)
    table = read_columns(local_store, manifest, "train", ["image", "row_id"]).sort_by("row_id")
    expected = decode_file(content).image
    found = decode(table["image"][0].as_py())
    assert found.mode == expected.mode
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_a_camera_s_jpeg_with_a_preview_keeps_its_bytes(local_store: Store, tmp_path: Path):
    files = images_of("JPEG", ".jpg")
    pair = [picture(0, 0, (24, 32)), picture(0, 1, (12, 16))]
    files["train/cat/0.jpg"] = encoded(pair[0], "MPO", save_all=True, append_images=pair[1:])
    given = write_folder(tmp_path / "given", files)
    manifest, _ = prepare(local_store, "mine", str(given), how=FOLDER)
    table = read_columns(local_store, manifest, "train", ["image", "row_id"]).sort_by("row_id")
    assert table["image"][0].as_py() == files["train/cat/0.jpg"]
    assert (manifest.source.converted_images, manifest.left_out) == ({}, ())
    assert decode(files["train/cat/0.jpg"]).size == (32, 24)


@pytest.mark.parametrize("form", ["EPS", "TGA", "ICO", "PDF"])
def test_no_other_format_is_opened(form: str):
    with pytest.raises(ValueError, match="its bytes are not an image of JPEG, PNG, WEBP, GIF"):
        decode_file(encoded(picture(0, 0, (16, 16)), form))
