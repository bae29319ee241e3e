"""Image files become pixels of the network's shape, and every change is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarray.errors import InputError
from cifarray.inference.predict import read_image

RGB, GRAY = (8, 8, 3), (8, 8, 1)


def pixels(height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> str:
    image.save(path, **options)
    return str(path)


def test_an_image_of_the_networks_own_shape_is_left_as_it_is(tmp_path: Path):
    original = pixels()
    found = read_image(saved(tmp_path / "a.png", Image.fromarray(original)), RGB)
    assert np.array_equal(found.pixels_HWC, original)
    assert found.changes == ()


def test_a_gray_image_of_its_own_shape_is_left_as_it_is(tmp_path: Path):
    original = pixels(channels=1)
    found = read_image(saved(tmp_path / "a.png", Image.fromarray(original[:, :, 0])), GRAY)
    assert np.array_equal(found.pixels_HWC, original)
    assert found.changes == ()


def test_a_gray_image_gets_three_equal_channels(tmp_path: Path):
    gray = pixels(channels=1)[:, :, 0]
    found = read_image(saved(tmp_path / "a.png", Image.fromarray(gray)), RGB)
    assert np.array_equal(found.pixels_HWC, np.repeat(gray[:, :, None], 3, axis=2))
    assert found.changes == ("gray to RGB",)


def test_a_colored_image_becomes_gray_as_pil_does_it(tmp_path: Path):
    image = Image.fromarray(pixels())
    found = read_image(saved(tmp_path / "a.png", image), GRAY)
    assert np.array_equal(found.pixels_HWC[:, :, 0], np.asarray(image.convert("L")))
    assert found.changes == ("RGB to gray",)


def test_a_large_image_is_resized_and_says_so(tmp_path: Path):
    image = Image.fromarray(pixels(40, 40))
    found = read_image(saved(tmp_path / "a.png", image), RGB)
    expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(found.pixels_HWC, expected)
    assert found.changes == ("resized from 40x40 to 8x8",)


def test_an_oblong_image_says_that_its_proportions_change(tmp_path: Path):
    found = read_image(saved(tmp_path / "a.png", Image.fromarray(pixels(20, 40))), RGB)
    assert found.changes == ("resized from 40x20 to 8x8, which changes its aspect ratio",)


def test_exif_orientation_turns_the_image_upright(tmp_path: Path):
    image = Image.fromarray(pixels())
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read_image(saved(tmp_path / "a.png", image, exif=exif), RGB)
    assert np.array_equal(found.pixels_HWC, np.rot90(np.asarray(image), -1))
    assert found.changes == ("turned upright",)


def test_transparent_pixels_become_white(tmp_path: Path):
    image = Image.fromarray(np.dstack([pixels(), np.zeros((8, 8), np.uint8)]), "RGBA")
    found = read_image(saved(tmp_path / "a.png", image), RGB)
    assert (found.pixels_HWC == 255).all()
    assert found.changes == ("transparency laid on white",)


def test_sixteen_bit_gray_keeps_its_range(tmp_path: Path):
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    found = read_image(saved(tmp_path / "a.png", Image.fromarray(values)), GRAY)
    assert found.pixels_HWC.min() == 0
    assert found.pixels_HWC.max() == 255
    assert found.changes == ("16 bits to 8",)


def test_of_several_frames_the_first_is_taken(tmp_path: Path):
    frames = [Image.fromarray(pixels()).convert("P"), Image.new("P", (8, 8), 3)]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    found = read_image(path, RGB)
    assert found.changes == ("first of several frames", "palette to RGB")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("shape", [RGB, GRAY])
def test_every_common_kind_of_pixel_is_read(tmp_path: Path, mode: str, shape: tuple[int, int, int]):
    name = "a.tiff" if mode == "CMYK" else "a.png"
    image = Image.new("L", (9, 7), 100).convert(mode)
    assert read_image(saved(tmp_path / name, image), shape).pixels_HWC.shape == shape


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no image at"):
        read_image(str(tmp_path / "a.png"), RGB)
    with pytest.raises(InputError, match="is a folder"):
        read_image(str(tmp_path), RGB)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image"):
        read_image(str(tmp_path / "a.png"), RGB)


def test_a_cut_image_is_refused(tmp_path: Path):
    path = tmp_path / "a.jpg"
    saved(path, Image.fromarray(pixels(64, 64)))
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(str(path), RGB)


def test_a_format_that_runs_other_programs_is_refused(tmp_path: Path):
    path = saved(tmp_path / "a.eps", Image.fromarray(pixels()))
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(path, RGB)


def test_an_image_that_claims_too_many_pixels_is_refused(tmp_path: Path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 60000 60000 255\n" + b"0" * 100)
    with pytest.raises(InputError, match="3600000000 pixels; at most"):
        read_image(str(path), RGB)


def test_a_tiff_whose_second_frame_is_damaged_gives_its_first(tmp_path: Path):
    path = tmp_path / "a.tiff"
    image = Image.fromarray(pixels())
    image.save(path, save_all=True, append_images=[image])
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    second = int.from_bytes(content[end : end + 4], "little") + 2
    content[second : second + 2] = b"\xff\x7f"  # no tag says how wide it is
    path.write_bytes(content)
    found = read_image(str(path), RGB)
    assert np.array_equal(found.pixels_HWC, np.asarray(image))
    assert found.changes == ("first of several frames",)
