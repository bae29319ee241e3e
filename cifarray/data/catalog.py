"""The datasets that cifarray knows: classes, shape, splits, official archives and checksums.

A dataset of the user's images has an entry too, made of its name and the layout of its archive.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from cifarray.errors import DatasetError
from cifarray.spec.load import unknown_name


@dataclass(frozen=True)
class RemoteFile:
    """A published file at its official address."""

    name: str
    url: str
    md5: str
    size_bytes: int


@dataclass(frozen=True)
class DatasetEntry:
    """What is known of a dataset before it is read."""

    name: str
    title: str
    shape: tuple[int, int, int] | None
    """Height, width, channels; None if sizes differ or are not known yet."""
    classes: tuple[str, ...]
    rows: Mapping[str, int]
    """Published rows of each split (an archive may have fewer); empty for the user's images."""
    layout: Literal["cifar-pickle", "idx", "digits", "cub200", "imagefolder", "huggingface"]
    citation: str
    homepage: str
    archives: tuple[RemoteFile, ...] = ()
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The files of each split inside the archive; of `names`, those that hold the class names."""
    binary_members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The same in the version for C programs, in the same order; `names` as `members` has them."""
    coarse_classes: tuple[str, ...] = ()
    fine_to_coarse: tuple[int, ...] = ()

    @property
    def fixed_shape(self) -> tuple[int, int, int]:
        """The shape of all images, in layouts that are arrays of pixels."""
        assert self.shape is not None
        return self.shape

    @property
    def image_bytes(self) -> int:
        """Bytes of one image as uint8, in layouts that are arrays of pixels."""
        height, width, channels = self.fixed_shape
        return height * width * channels

    @property
    def train_parts(self) -> tuple[str, ...]:
        """Names of the archive's parts that train comes from, in order; most have one."""
        if self.layout != "cifar-pickle":
            return ("train",)
        return tuple(PurePosixPath(name).name for name in self.members["train"])


CIFAR100_SUPERCLASSES: Mapping[str, tuple[str, ...]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}


_COARSE_OF = {
    fine: index for index, group in enumerate(CIFAR100_SUPERCLASSES.values()) for fine in group
}

KRIZHEVSKY = (
    "Alex Krizhevsky. Learning Multiple Layers of Features from Tiny Images. "
    "Technical report, University of Toronto, 2009."
)

CIFAR100 = DatasetEntry(
    name="cifar100",
    title="CIFAR-100",
    shape=(32, 32, 3),
    classes=tuple(sorted(_COARSE_OF)),
    coarse_classes=tuple(CIFAR100_SUPERCLASSES),
    fine_to_coarse=tuple(_COARSE_OF[fine] for fine in sorted(_COARSE_OF)),
    rows={"train": 50_000, "test": 10_000},
    layout="cifar-pickle",
    members={
        "train": ("cifar-100-python/train",),
        "test": ("cifar-100-python/test",),
        "names": ("cifar-100-python/meta",),
    },
    binary_members={
        "train": ("cifar-100-binary/train.bin",),
        "test": ("cifar-100-binary/test.bin",),
        "names": (
            "cifar-100-binary/fine_label_names.txt",
            "cifar-100-binary/coarse_label_names.txt",
        ),
    },
    archives=(
        RemoteFile(
            name="cifar-100-python.tar.gz",
            url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            size_bytes=169_001_437,
        ),
    ),
    citation=KRIZHEVSKY,
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
)

CIFAR10 = DatasetEntry(
    name="cifar10",
    title="CIFAR-10",
    shape=(32, 32, 3),
    classes=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    rows={"train": 50_000, "test": 10_000},
    layout="cifar-pickle",
    members={
        "train": tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        "test": ("cifar-10-batches-py/test_batch",),
        "names": ("cifar-10-batches-py/batches.meta",),
    },
    binary_members={
        "train": tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("cifar-10-batches-bin/test_batch.bin",),
        "names": ("cifar-10-batches-bin/batches.meta.txt",),
    },
    archives=(
        RemoteFile(
            name="cifar-10-python.tar.gz",
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            size_bytes=170_498_071,
        ),
    ),
    citation=KRIZHEVSKY,
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
)

FASHION_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

FASHION_MNIST = DatasetEntry(
    name="fashion-mnist",
    title="Fashion-MNIST",
    shape=(28, 28, 1),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    rows={"train": 60_000, "test": 10_000},
    layout="idx",
    members={
        "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
        "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
    },
    archives=tuple(
        RemoteFile(name=name, url=FASHION_ADDRESS + name, md5=md5, size_bytes=size_bytes)
        for name, md5, size_bytes in (
            ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
            ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 29_515),
            ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4_422_102),
            ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 5_148),
        )
    ),
    citation=(
        "Han Xiao, Kashif Rasul, Roland Vollgraf. Fashion-MNIST: a Novel Image Dataset for "
        "Benchmarking Machine Learning Algorithms. arXiv:1708.07747, 2017."
    ),
    homepage="https://github.com/zalandoresearch/fashion-mnist",
)

DIGITS = DatasetEntry(
    name="digits",
    title="Handwritten digits of scikit-learn",
    shape=(8, 8, 1),
    classes=tuple(str(digit) for digit in range(10)),
    rows={"train": 1_437, "test": 360},
    layout="digits",
    citation=(
        "E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. "
        "UCI Machine Learning Repository, 1998. doi:10.24432/C50P49."
    ),
    homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html",
)

CUB200_NAMES = """
Black_footed_Albatross Laysan_Albatross Sooty_Albatross Groove_billed_Ani Crested_Auklet
Least_Auklet Parakeet_Auklet Rhinoceros_Auklet Brewer_Blackbird Red_winged_Blackbird
Rusty_Blackbird Yellow_headed_Blackbird Bobolink Indigo_Bunting Lazuli_Bunting Painted_Bunting
Cardinal Spotted_Catbird Gray_Catbird Yellow_breasted_Chat Eastern_Towhee Chuck_will_Widow
Brandt_Cormorant Red_faced_Cormorant Pelagic_Cormorant Bronzed_Cowbird Shiny_Cowbird Brown_Creeper
American_Crow Fish_Crow Black_billed_Cuckoo Mangrove_Cuckoo Yellow_billed_Cuckoo
Gray_crowned_Rosy_Finch Purple_Finch Northern_Flicker Acadian_Flycatcher Great_Crested_Flycatcher
Least_Flycatcher Olive_sided_Flycatcher Scissor_tailed_Flycatcher Vermilion_Flycatcher
Yellow_bellied_Flycatcher Frigatebird Northern_Fulmar Gadwall American_Goldfinch
European_Goldfinch Boat_tailed_Grackle Eared_Grebe Horned_Grebe Pied_billed_Grebe Western_Grebe
Blue_Grosbeak Evening_Grosbeak Pine_Grosbeak Rose_breasted_Grosbeak Pigeon_Guillemot
California_Gull Glaucous_winged_Gull Heermann_Gull Herring_Gull Ivory_Gull Ring_billed_Gull
Slaty_backed_Gull Western_Gull Anna_Hummingbird Ruby_throated_Hummingbird Rufous_Hummingbird
Green_Violetear Long_tailed_Jaeger Pomarine_Jaeger Blue_Jay Florida_Jay Green_Jay Dark_eyed_Junco
Tropical_Kingbird Gray_Kingbird Belted_Kingfisher Green_Kingfisher Pied_Kingfisher
Ringed_Kingfisher White_breasted_Kingfisher Red_legged_Kittiwake Horned_Lark Pacific_Loon Mallard
Western_Meadowlark Hooded_Merganser Red_breasted_Merganser Mockingbird Nighthawk Clark_Nutcracker
White_breasted_Nuthatch Baltimore_Oriole Hooded_Oriole Orchard_Oriole Scott_Oriole Ovenbird
Brown_Pelican White_Pelican Western_Wood_Pewee Sayornis American_Pipit Whip_poor_Will
Horned_Puffin Common_Raven White_necked_Raven American_Redstart Geococcyx Loggerhead_Shrike
Great_Grey_Shrike Baird_Sparrow Black_throated_Sparrow Brewer_Sparrow Chipping_Sparrow
Clay_colored_Sparrow House_Sparrow Field_Sparrow Fox_Sparrow Grasshopper_Sparrow Harris_Sparrow
Henslow_Sparrow Le_Conte_Sparrow Lincoln_Sparrow Nelson_Sharp_tailed_Sparrow Savannah_Sparrow
Seaside_Sparrow Song_Sparrow Tree_Sparrow Vesper_Sparrow White_crowned_Sparrow
White_throated_Sparrow Cape_Glossy_Starling Bank_Swallow Barn_Swallow Cliff_Swallow Tree_Swallow
Scarlet_Tanager Summer_Tanager Artic_Tern Black_Tern Caspian_Tern Common_Tern Elegant_Tern
Forsters_Tern Least_Tern Green_tailed_Towhee Brown_Thrasher Sage_Thrasher Black_capped_Vireo
Blue_headed_Vireo Philadelphia_Vireo Red_eyed_Vireo Warbling_Vireo White_eyed_Vireo
Yellow_throated_Vireo Bay_breasted_Warbler Black_and_white_Warbler Black_throated_Blue_Warbler
Blue_winged_Warbler Canada_Warbler Cape_May_Warbler Cerulean_Warbler Chestnut_sided_Warbler
Golden_winged_Warbler Hooded_Warbler Kentucky_Warbler Magnolia_Warbler Mourning_Warbler
Myrtle_Warbler Nashville_Warbler Orange_crowned_Warbler Palm_Warbler Pine_Warbler Prairie_Warbler
Prothonotary_Warbler Swainson_Warbler Tennessee_Warbler Wilson_Warbler Worm_eating_Warbler
Yellow_Warbler Northern_Waterthrush Louisiana_Waterthrush Bohemian_Waxwing Cedar_Waxwing
American_Three_toed_Woodpecker Pileated_Woodpecker Red_bellied_Woodpecker Red_cockaded_Woodpecker
Red_headed_Woodpecker Downy_Woodpecker Bewick_Wren Cactus_Wren Carolina_Wren House_Wren Marsh_Wren
Rock_Wren Winter_Wren Common_Yellowthroat
"""
"""In the order of classes.txt, without its numbers."""

CUB200 = DatasetEntry(
    name="cub200",
    title="CUB-200-2011",
    shape=None,
    classes=tuple(CUB200_NAMES.split()),
    rows={"train": 5_994, "test": 5_794},
    layout="cub200",
    archives=(
        RemoteFile(
            name="CUB_200_2011.tgz",
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            md5="97eceeb196236b17998738112f37df78",
            size_bytes=1_150_585_339,
        ),
    ),
    citation=(
        "Catherine Wah, Steve Branson, Peter Welinder, Pietro Perona, Serge Belongie. "
        "The Caltech-UCSD Birds-200-2011 Dataset. "
        "Technical report CNS-TR-2011-001, California Institute of Technology, 2011."
    ),
    homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
)

DATASETS: dict[str, DatasetEntry] = {
    entry.name: entry for entry in (CIFAR100, CIFAR10, FASHION_MNIST, CUB200, DIGITS)
}
DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
USER_LAYOUTS = ("imagefolder", "huggingface")
"""The layouts that the user's images may have."""


def dataset_entry(name: str) -> DatasetEntry:
    """The catalog's entry of that name.

    Raises:
        DatasetError: the catalog has no such name; the sentence lists those it has.
    """
    if name not in DATASETS:
        raise DatasetError(
            f"{unknown_name('dataset', name, list(DATASETS))}; {_hint_for_user_images(name)}"
        )
    return DATASETS[name]


def _hint_for_user_images(name: str) -> str:
    """The end of an error message that says how to prepare a dataset of this name."""
    called = name if DATASET_NAME.fullmatch(name) else "NAME"
    return (
        f"or prepare your own images: `cifarray data prepare {called} --layout imagefolder "
        "--archive DIR`"
    )


def user_dataset(name: str, layout: str) -> DatasetEntry:
    """The entry of the user's images, of which an archive says everything else.

    Raises:
        DatasetError: a name of the catalog, or one that no folder can have; an unknown layout.
    """
    if layout not in USER_LAYOUTS:
        raise DatasetError(unknown_name("layout", layout, USER_LAYOUTS))
    if name in DATASETS:
        raise DatasetError(
            f"{name} is a dataset of the catalog, which has a fixed layout; leave --layout out, "
            "or give your images another name"
        )
    if not DATASET_NAME.fullmatch(name):
        raise DatasetError(
            f"cannot name a dataset {name!r}; a name has lower-case letters, digits, '-' and '_', "
            "begins with a letter or a digit and has at most 63 characters"
        )
    kind: Any = layout
    return DatasetEntry(name, name, None, (), {}, kind, citation="", homepage="")
