"""Bytes of image files become upright gray or RGB pixels, and nothing else gets through."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cifarray.data.decode import STRIP_PIXELS, decode, square, with_channels, with_squares
from cifarray.errors import DatasetError
from cifarray.inference.predict import read_image
from tests.image_archives import encoded, picture


def drawn(mode: str, size: tuple[int, int] = (6, 5)) -> Image.Image:
    return picture(1, 0, size).convert(mode)


@pytest.mark.parametrize(
    ("mode", "decoded"),
    [("RGB", "RGB"), ("L", "L"), ("1", "L"), ("P", "RGB"), ("RGBA", "RGB"), ("LA", "L")],
)
def test_every_mode_becomes_gray_or_rgb(mode: str, decoded: str):
    image = decode(encoded(drawn(mode)))
    assert (image.mode, image.size) == (decoded, (5, 6))


def test_a_jpeg_of_four_inks_becomes_rgb():
    assert decode(encoded(drawn("CMYK"), "JPEG")).mode == "RGB"


def test_an_image_that_lies_on_its_side_is_set_upright():
    image = drawn("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(encoded(image, exif=exif))
    assert np.array_equal(np.asarray(found), np.rot90(np.asarray(image), -1))


def test_a_square_is_what_predict_makes_of_the_same_file(tmp_path: Path):
    content = encoded(picture(3, 0, (45, 61)), "JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    expected = read_image(str(tmp_path / "a.jpg"), (20, 20, 3)).pixels_HWC
    assert np.array_equal(square(content, 20), expected)


def test_a_table_gets_squares_in_the_place_of_its_files():
    contents = [encoded(picture(label, 0, (10 + label, 30))) for label in range(5)]
    halves = [contents[:2], contents[2:]]
    table = pa.table(
        {
            "label": pa.chunked_array([[0, 1], [2, 3, 4]]),
            "image": pa.chunked_array([pa.array(half, pa.binary()) for half in halves]),
            "row_id": pa.chunked_array([[7, 8], [9, 10, 11]]),
        }
    )
    found = with_squares(table, 16, "a test")
    assert found.column_names == table.column_names
    assert found["label"].equals(table["label"])
    for content, row in zip(contents, found["image"], strict=True):
        pixels = np.frombuffer(row.as_py(), np.uint8).reshape(16, 16, 3)
        assert np.array_equal(pixels, square(content, 16))
    assert with_squares(table.slice(0, 0), 16, "a test")["image"].type == pa.binary(16 * 16 * 3)


def test_a_row_that_does_not_decode_is_named():
    table = pa.table({"image": [encoded(picture(0, 0)), b"rubbish"], "row_id": [3, 17]})
    with pytest.raises(DatasetError, match="image of row_id 17 of birds 0123 does not decode"):
        with_squares(table, 16, "birds 0123")


def test_transparency_is_laid_on_white_alike_in_one_strip_and_in_many():
    size = (1100, 1000, 4)
    assert size[0] * size[1] > STRIP_PIXELS
    draw = np.random.default_rng(1)
    for mode in ("RGBA", "LA"):
        image = Image.fromarray(draw.integers(0, 256, size, dtype=np.uint8)).convert(mode)
        layer = image.convert("RGBA")
        whole = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        assert np.array_equal(np.asarray(with_channels(image, 3, [])), np.asarray(whole))


def test_an_image_of_sixteen_bits_keeps_its_shades():
    shades = (np.arange(30, dtype=np.uint16).reshape(5, 6) * 2184).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(shades).save(file, format="PNG")
    assert np.array_equal(np.asarray(decode(file.getvalue())), shades // 257)
