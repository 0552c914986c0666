"""The classes of ImageNet-1k that show objects of a kind, or objects that look like it.

`train.components.known_classifier` uses them to choose the classes of an ImageNet classifier that belong to known
kinds. The table was written from the names of the classes. A class belongs to a kind if an object of the class has the
shape of the kind; classes of a part (a car wheel) do not. A kind without an entry has no class.
"""

from collections.abc import Iterable
from functools import cache
from typing import Final

from train.components.backbone import CLASSES

# kind -> first names of classes, or ranges of their numbers, separated by commas
_CLASSES_OF_KINDS: Final = {
    # animals
    "bird": "7-24, 80-100, 127-146",
    "butterfly": "321-326",
    "cat": "281-285",
    "chicken": "cock, hen",
    "cow": "ox, water buffalo",
    "deer": "351-353",
    "dinosaur": "triceratops",
    "dog": "151-275",
    "duck": "97-99",
    "elephant": "tusker, indian elephant, african elephant",
    "fish": "0-4, 389-397",
    "frog": "30-32",
    "horse": "sorrel",
    "owl": "great grey owl",
    "penguin": "king penguin",
    "pig": "hog, wild boar",
    "rabbit": "330-332",
    "teddybear": "teddy",
    "turtle": "33-37",
    # vehicles
    "aeroplane": "airliner, warplane, wing",
    "bicycle": "mountain bike, bicycle-built-for-two, tricycle, unicycle",
    "biplane": "warplane, airliner",
    "boat": "canoe, gondola, speedboat, lifeboat",
    "bus": "school bus, trolleybus, minibus, streetcar, recreational vehicle",
    "car": "sports car, convertible, racer, cab, beach wagon, jeep, limousine, minivan, model t, pickup, police van, "
    "ambulance, grille, go-kart, golfcart",
    "forklift": "forklift",
    "helicopter": "warplane, airliner",
    "lawn mower": "lawn mower",
    "motorcycle": "moped, motor scooter",
    "rocket": "missile, projectile, space shuttle",
    "sailboat": "yawl, schooner, catamaran, trimaran",
    "ship": "container ship, liner, pirate, fireboat, aircraft carrier, wreck, lifeboat, speedboat, paddlewheel",
    "tank": "tank, half track",
    "tractor": "tractor, harvester, thresher",
    "train": "steam locomotive, electric locomotive, bullet train, passenger car, freight car, streetcar",
    "tricycle": "tricycle",
    "truck": "trailer truck, tow truck, garbage truck, moving van, fire engine, pickup, snowplow, police van, "
    "ambulance, recreational vehicle",
    "van": "minivan, police van, moving van, minibus, ambulance",
    "wheelbarrow": "barrow",
    # buildings
    "castle": "castle, palace, monastery, church",
    "house": "barn, boathouse, mobile home, birdhouse, greenhouse, tile roof, thatch, library, prison, restaurant, "
    "cinema, bakery, barbershop, bookshop, butcher shop, confectionery, grocery store, tobacco shop, toyshop, "
    "shoe shop, lumbermill, patio, bell cote",
    "tent": "mountain tent",
    # food
    "apple": "granny smith, pomegranate",
    "banana": "banana",
    "bread": "french loaf",
    "burger": "cheeseburger",
    "cake": "trifle, chocolate sauce",
    "donut": "bagel",
    "hot dog": "hotdog",
    "icecream": "ice cream, ice lolly",
    "pear": "fig, granny smith",
    "pineapple": "pineapple",
    "pizza": "pizza",
    "pumpkin": "jack-o'-lantern, acorn squash, spaghetti squash",
    "steak": "meat loaf",
    # plants
    "flower": "daisy, yellow lady's slipper, cardoon",
    "mushroom": "991-997, mushroom",
    "plant": "pot",
    "tree": "broccoli, cauliflower",
    # music, sport and toys
    "ball": "soccer ball, volleyball, basketball, baseball, tennis ball, golf ball, croquet ball, rugby ball, "
    "ping-pong ball",
    "drum": "drum, steel drum",
    "exercise machine": "dumbbell, barbell",
    "guitar": "acoustic guitar, electric guitar, banjo, violin, cello",
    "joystick": "joystick",
    "keyboard instrument": "upright, organ",
    "piano": "grand piano, upright, organ",
    "pinball machine": "slot",
    "pool table": "pool table",
    "punching ball": "punching bag",
    "puzzle": "jigsaw puzzle",
    "racket": "racket",
    "swing": "swing",
    "xylophone": "marimba",
    # clothes and things to carry
    "backpack": "backpack, mailbag",
    "gloves": "mitten",
    "glasses": "sunglass, sunglasses",
    "handbag": "purse",
    "hat": "cowboy hat, sombrero, bonnet, bearskin, mortarboard, pickelhaube",
    "helmet": "crash helmet, football helmet",
    "lipstick": "lipstick",
    "shoe": "running shoe, loafer, sandal, clog, cowboy boot",
    "sunglasses": "sunglass, sunglasses",
    "umbrella": "umbrella",
    "watch": "digital watch, stopwatch",
    # dishes and kitchen
    "bottle": "wine bottle, beer bottle, pop bottle, water bottle, pill bottle, whiskey jug, lotion, perfume",
    "bowl": "mixing bowl, soup bowl",
    "bowl with fruits": "mixing bowl, soup bowl",
    "bowl with salad": "mixing bowl, soup bowl",
    "coffee machine": "espresso maker, coffeepot",
    "cooktop": "stove",
    "drinking glass": "goblet, beer glass, red wine",
    "jug": "pitcher, water jug, whiskey jug",
    "kettle": "teapot, coffeepot",
    "kitchen utensil": "ladle, spatula, wooden spoon, strainer, frying pan, corkscrew, can opener",
    "knife": "letter opener, cleaver",
    "microwave": "microwave",
    "mug": "coffee mug, cup, beer glass, measuring cup",
    "oven": "stove, microwave, rotisserie",
    "plate": "plate",
    "pot": "pot, caldron, crock pot, dutch oven, wok, frying pan",
    "refrigerator": "refrigerator",
    "salt shaker": "saltshaker",
    "sandwich maker": "waffle iron, toaster",
    "sushi tray": "tray",
    "teapot": "teapot, coffeepot",
    "toaster": "toaster",
    "vase": "vase, pitcher, water jug, pot",
    # furniture and household
    "armchair": "rocking chair, barber chair, throne, studio couch",
    "barrel": "barrel, rain barrel",
    "basket": "shopping basket, hamper",
    "bathtub": "bathtub, tub",
    "bed": "four-poster, studio couch",
    "bench": "park bench",
    "book": "book jacket, comic book, notebook, binder",
    "bookcase": "bookcase",
    "box": "crate, carton, chest, pencil box",
    "broom": "broom",
    "bucket": "bucket",
    "cabinet": "chest, chiffonier, china cabinet, medicine chest, file, entertainment center",
    "candle": "candle",
    "chair": "rocking chair, folding chair, barber chair, throne",
    "clock": "analog clock, wall clock, digital clock, stopwatch, barometer",
    "crib": "crib, bassinet, cradle",
    "deck chair": "folding chair",
    "desk": "desk",
    "fan": "electric fan",
    "fireplace": "fire screen, stove",
    "flashlight": "torch",
    "folding screen": "shoji, window screen",
    "fountain": "fountain",
    "futon": "studio couch",
    "heater": "space heater, radiator",
    "lamp": "table lamp, lampshade, spotlight",
    "mailbox": "mailbox",
    "paper towel holder": "paper towel, toilet tissue",
    "pen": "ballpoint, fountain pen",
    "radiator": "radiator",
    "railing": "bannister, picket fence, chainlink fence",
    "safe": "safe",
    "scale": "scale",
    "shower curtain": "shower curtain",
    "sink": "washbasin",
    "sleeping bag": "sleeping bag",
    "soap": "soap dispenser",
    "sofa": "studio couch",
    "table": "dining table, desk",
    "toilet": "toilet seat",
    "toilet paper dispenser": "toilet tissue",
    "towel": "bath towel",
    "trash can": "ashcan",
    "wardrobe": "wardrobe",
    "washing machine": "washer, dishwasher",
    # tools and devices
    "camera": "reflex camera, polaroid camera",
    "computer": "desktop computer, computer keyboard, monitor, screen, mouse",
    "drill": "power drill",
    "hammer": "hammer, hatchet",
    "hose reel": "reel",
    "laptop": "laptop, notebook, hand-held computer",
    "number lock": "combination lock, padlock",
    "printer": "printer, photocopier",
    "screwdriver": "screwdriver",
    "shovel": "shovel",
    "speaker": "loudspeaker",
    "stereo": "cassette player, tape player, cd player, radio, loudspeaker",
    "tape measure": "rule",
    "telephone": "dial telephone, pay-phone, cellular telephone",
    "television": "television, monitor, screen, home theater, entertainment center",
    "tv remote control": "remote control",
    "video projector": "projector",
}


def classes_of(kinds: Iterable[str]) -> list[int]:
    """Return the numbers (0 to 999) of the ImageNet classes that belong to any of the kinds, ascending."""
    entries = {entry for kind in kinds if kind in _CLASSES_OF_KINDS for entry in _CLASSES_OF_KINDS[kind].split(", ")}
    return sorted({number for entry in entries for number in _numbers(entry)})


def _numbers(entry: str) -> list[int]:
    first, _, last = entry.partition("-")
    if first.isdigit() and last.isdigit():
        return list(range(int(first), int(last) + 1))
    return [_names().index(entry)]


@cache
def _names() -> list[str]:
    """Return the first name of each class, in lower case."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(number).lower().split(",")[0].strip() for number in range(CLASSES)]
