"""The picture of a network: what is drawn, what is put together, and what the files are."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from cifarray.errors import InputError
from cifarray.report.network import (
    MOST_SOLIDS,
    WIDTH,
    Block,
    Layer,
    Solid,
    network_size,
    paint_network,
    solids,
)
from cifarray.report.svg import COLORS, ON_PAPER, draw, draw_file
from tests.report_samples import LAYERS

IMAGE = (3, 32, 32)


def conv(name: str, channels: int, block: Block | None = None, kernel: str = "3x3") -> Layer:
    return Layer(name, "Conv2d", kernel, (channels, 16, 16), 9, 9, block)


def text_of(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def drawn_on_page(drawn: list[Solid]) -> str:
    size = network_size(drawn)
    return draw("network", "a network", size, lambda f: paint_network(f, drawn, COLORS))


def test_what_learns_features_or_pools_is_drawn_in_order():
    found = solids(LAYERS, (1, 8, 8))
    assert [(solid.kind, solid.shape) for solid in found] == [
        ("input", (1, 8, 8)),
        ("convolution", (32, 8, 8)),
        ("pooling", (32, 4, 4)),
        ("block", (64, 4, 4)),
        ("dense", (10,)),
    ]


def test_equal_neighbors_become_one_with_their_number():
    layers = [conv("a", 8), conv("b", 8), conv("c", 16), conv("d", 8)]
    assert [(s.count, s.shape[0]) for s in solids(layers, IMAGE)[1:]] == [(2, 8), (1, 16), (1, 8)]
    assert solids(layers, IMAGE)[1].words == ("2 × conv 3×3", "8, 16×16")


def test_blocks_of_a_stage_become_one_with_the_kernels_of_their_main_way():
    layers = []
    for number in range(4):
        block = Block(f"blocks.{number}", "Bottleneck", (256, 16, 16))
        name = f"blocks.{number}"
        layers += [conv(f"{name}.conv{i}", 64, block, k) for i, k in enumerate(("1x1", "3x3"))]
        if number == 0:
            layers.append(conv(f"{name}.shortcut.0", 256, block, "1x1"))
    found = solids(layers, IMAGE)[1:]
    assert [(solid.count, solid.title, solid.note) for solid in found] == [
        (4, "Bottleneck", "1×1, 3×3")
    ]


def test_a_block_around_one_layer_is_that_layer():
    layers = [conv("stem.conv", 8, Block("stem", "ConvNormAct", (8, 16, 16)))]
    assert solids(layers, IMAGE)[1].title == "conv 3×3"


def test_a_layer_that_no_image_reaches_is_not_drawn():
    assert len(solids([Layer("head", "Linear", "", None, 5, 5)], IMAGE)) == 1


def test_the_page_shows_every_solid_in_the_pages_colors():
    drawn = solids(LAYERS, (1, 8, 8))
    svg = drawn_on_page(drawn)
    words = text_of(svg)
    assert {"image", "conv 3×3", "pool 2×2", "B", "dense", "64, 4×4"} <= set(words)
    assert "var(--accent)" in svg
    assert "#fe00" not in svg


def test_a_network_of_very_many_parts_says_how_many_it_leaves_out():
    layers = [conv(f"features.{i}", 8 + i % 2) for i in range(MOST_SOLIDS + 9)]
    drawn = solids(layers, IMAGE)
    assert "and 10 more" in text_of(drawn_on_page(drawn))
    assert network_size(drawn)[1] == network_size(drawn[:MOST_SOLIDS])[1]


@pytest.mark.parametrize("ending", [".svg", ".png", ".PNG"])
def test_a_file_of_its_own_has_colors_of_its_own(tmp_path: Path, ending: str):
    drawn, path = solids(LAYERS, (1, 8, 8)), tmp_path / f"network{ending}"
    draw_file(path, network_size(drawn), lambda f: paint_network(f, drawn, ON_PAPER))
    if ending == ".svg":
        text = path.read_text()
        assert "#2453d6" in text
        assert "var(" not in text
    else:
        picture = Image.open(path).convert("RGB")
        assert picture.size[0] == 2 * WIDTH
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert (0x24, 0x53, 0xD6) in {c for _, c in picture.getcolors(1 << 20) or []}


def test_another_ending_or_place_is_one_sentence(tmp_path: Path):
    with pytest.raises(InputError, match=r"use a file name that ends in \.svg or \.png"):
        draw_file(tmp_path / "network.gif", (10, 10), print)
    with pytest.raises(InputError, match=r"cannot be written: .*; give another path"):
        draw_file(tmp_path / "nowhere" / "network.png", (10, 10), print)
