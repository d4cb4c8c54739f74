"""What the retailer sells, where it keeps it and who makes it: products, distribution centers, suppliers.

Companies, brands and vessels are made up; cities and ports are real. Demand and stock are not here.
"""

import random
from typing import Final, NamedTuple

from retail_world import SEED

SKUS_PER_CATEGORY: Final = 25
CENTERS_PER_SKU: Final = (3, 4, 4, 5)


class Center(NamedTuple):
    code: str
    city: str
    country: str
    region: str
    port: str
    southern: bool
    """South of the equator: the seasons of the year are turned round."""


class Supplier(NamedTuple):
    supplier_id: str
    name: str
    city: str
    country: str
    region: str
    lead_time_days: int
    """From order to arrival at the center, as agreed."""
    categories: tuple[str, ...]


class Category(NamedTuple):
    name: str
    peak_month: int
    swing: float
    """How far the yearly season moves demand up and down, as a share of its mean."""
    weekend: float
    """Demand on a Saturday against a Tuesday."""
    price: tuple[float, float]
    carton: tuple[int, ...]
    brands: tuple[str, ...]
    things: tuple[str, ...]
    variants: tuple[str, ...]


class Product(NamedTuple):
    sku: str
    name: str
    category: str
    supplier_id: str
    price_cents: int
    cost_cents: int
    carton: int
    weight_g: int


class Stocked(NamedTuple):
    """A product that a center keeps: the unit of demand and stock."""

    product: Product
    center: Center
    supplier: Supplier


CENTERS: Final = (
    Center("SHA", "Shanghai", "CN", "asia", "Yangshan", southern=False),
    Center("RTM", "Rotterdam", "NL", "europe", "Maasvlakte", southern=False),
    Center("MEM", "Memphis", "US", "americas", "Savannah", southern=False),
    Center("LAX", "Los Angeles", "US", "americas", "San Pedro", southern=False),
    Center("GRU", "Sao Paulo", "BR", "americas", "Santos", southern=True),
    Center("SIN", "Singapore", "SG", "asia", "Pasir Panjang", southern=False),
    Center("DXB", "Dubai", "AE", "mea", "Jebel Ali", southern=False),
    Center("HAM", "Hamburg", "DE", "europe", "Altenwerder", southern=False),
    Center("BOM", "Mumbai", "IN", "asia", "Nhava Sheva", southern=False),
    Center("NRT", "Tokyo", "JP", "asia", "Oi", southern=False),
    Center("JNB", "Johannesburg", "ZA", "mea", "Durban", southern=True),
    Center("SYD", "Sydney", "AU", "oceania", "Port Botany", southern=True),
)

SUPPLIERS: Final = (
    Supplier(
        "SUP-001", "Shenzhen Brightway Electronics", "Shenzhen", "CN", "asia", 28, ("Audio", "Wearables")
    ),
    Supplier("SUP-002", "Ningbo Harbor Housewares", "Ningbo", "CN", "asia", 36, ("Kitchen", "Home care")),
    Supplier("SUP-003", "Foshan Luminaire Works", "Foshan", "CN", "asia", 38, ("Lighting",)),
    Supplier("SUP-004", "Taichung Precision Cycles", "Taichung", "TW", "asia", 34, ("Outdoor", "Fitness")),
    Supplier("SUP-005", "Incheon Audio Laboratories", "Incheon", "KR", "asia", 24, ("Audio",)),
    Supplier("SUP-006", "Osaka Kitchen Steel", "Osaka", "JP", "asia", 30, ("Kitchen",)),
    Supplier("SUP-007", "Penang Circuit Assembly", "Penang", "MY", "asia", 29, ("Wearables", "Lighting")),
    Supplier(
        "SUP-008", "Saigon Outdoor Textiles", "Ho Chi Minh City", "VN", "asia", 40, ("Outdoor", "Luggage")
    ),
    Supplier("SUP-009", "Tiruppur Cotton Mills", "Tiruppur", "IN", "asia", 42, ("Baby", "Home care")),
    Supplier("SUP-010", "Pune Office Systems", "Pune", "IN", "asia", 35, ("Office",)),
    Supplier("SUP-011", "Chattogram Weave", "Chattogram", "BD", "asia", 45, ("Luggage", "Baby")),
    Supplier("SUP-012", "Izmir Ceramics", "Izmir", "TR", "europe", 22, ("Kitchen",)),
    Supplier("SUP-013", "Lodz Home Products", "Lodz", "PL", "europe", 14, ("Home care", "Pet")),
    Supplier("SUP-014", "Porto Cork and Paper", "Porto", "PT", "europe", 16, ("Office",)),
    Supplier("SUP-015", "Brno Fitness Engineering", "Brno", "CZ", "europe", 18, ("Fitness",)),
    Supplier("SUP-016", "Billund Playthings", "Billund", "DK", "europe", 15, ("Toys",)),
    Supplier("SUP-017", "Hai Phong Energy Devices", "Hai Phong", "VN", "asia", 33, ("Power",)),
    Supplier("SUP-018", "Milano Valigie", "Milan", "IT", "europe", 17, ("Luggage",)),
    Supplier("SUP-019", "Monterrey Molded Goods", "Monterrey", "MX", "americas", 13, ("Toys", "Pet")),
    Supplier("SUP-020", "Joinville Utensils", "Joinville", "BR", "americas", 19, ("Kitchen",)),
    Supplier("SUP-021", "Ohio Valley Pet Foods", "Columbus", "US", "americas", 12, ("Pet",)),
    Supplier("SUP-022", "Guadalajara Power Systems", "Guadalajara", "MX", "americas", 20, ("Power",)),
    Supplier("SUP-023", "Casablanca Leather", "Casablanca", "MA", "mea", 24, ("Luggage", "Office")),
    Supplier("SUP-024", "Cape Trail Equipment", "Cape Town", "ZA", "mea", 26, ("Outdoor",)),
    Supplier("SUP-025", "Dongguan Toyworks", "Dongguan", "CN", "asia", 39, ("Toys", "Baby")),
)

CATEGORIES: Final = (
    Category("Power", 11, 0.16, 1.25, (14, 75), (24, 48), ("Voltara", "Amperio", "Cellwise"),
             ("USB-C Power Bank", "Wall Charger", "Charging Station", "Car Charger", "Travel Adapter"),
             ("10,000 mAh", "30 W", "65 W", "100 W", "Slim", "Rugged")),
    Category("Audio", 12, 0.30, 1.35, (19, 180), (12, 24), ("Sonelle", "Basswood", "Clearnote"),
             ("Wireless Earbuds", "Over-Ear Headphones", "Portable Speaker", "Soundbar", "USB Microphone"),
             ("Mini", "Pro", "Studio", "Sport", "Black", "Sand")),
    Category("Wearables", 1, 0.25, 1.20, (29, 210), (20, 40), ("Pulsera", "Tempora"),
             ("Fitness Band", "Smart Watch", "Sleep Ring", "Heart Rate Strap"),
             ("S", "M", "L", "GPS", "Titanium", "Lite", "Kids")),
    Category("Lighting", 12, 0.28, 1.15, (9, 85), (12, 36), ("Lumenary", "Glowfield"),
             ("LED Desk Lamp", "Camping Lantern", "String Lights", "Motion Night Light", "Floor Lamp"),
             ("Warm White", "Daylight", "Dimmable", "Solar", "Two-Pack", "Brass")),
    Category("Kitchen", 12, 0.18, 1.40, (8, 120), (6, 12, 24), ("Hearthstone", "Pantry & Co", "Ferrum"),
             ("Cast Iron Skillet", "Chef Knife", "Storage Jar Set", "Pour-Over Kettle", "Baking Sheet", "Mixing Bowl"),
             ("Small", "Large", "Family", "Matte", "Steel", "Set of 3")),
    Category("Outdoor", 6, 0.45, 1.60, (15, 220), (6, 10), ("Trailhead", "Norden Peak"),
             ("Trekking Backpack", "Two-Person Tent", "Sleeping Bag", "Folding Chair", "Water Filter", "Trekking Poles"),
             ("30 L", "45 L", "Ultralight", "All-Season", "Green", "Granite")),
    Category("Luggage", 7, 0.32, 1.30, (35, 260), (2, 4), ("Voyant", "Carrello"),
             ("Cabin Suitcase", "Check-In Suitcase", "Weekender Bag", "Packing Cube Set", "Laptop Backpack"),
             ("Navy", "Graphite", "Expandable", "Hard Shell", "Medium", "Soft")),
    Category("Office", 9, 0.35, 0.55, (4, 90), (24, 60, 120), ("Quillon", "Deskwell"),
             ("Notebook", "Gel Pen Pack", "Monitor Arm", "Laptop Stand", "Label Printer", "Desk Organizer"),
             ("A5", "A4", "Dotted", "Heavy Duty", "Oak", "Black")),
    Category("Fitness", 1, 0.50, 1.10, (12, 160), (8, 16), ("Ferrova", "Kinetic Field"),
             ("Resistance Band Set", "Yoga Mat", "Adjustable Dumbbell", "Foam Roller", "Jump Rope"),
             ("Light", "Medium", "Heavy", "6 mm", "Travel", "Studio")),
    Category("Home care", 4, 0.12, 1.30, (5, 60), (12, 24, 48), ("Linden House", "Puro"),
             ("Laundry Detergent", "Microfiber Cloth Pack", "Vacuum Filter", "Storage Box", "Drying Rack"),
             ("Unscented", "Lavender", "XL", "Refill", "Pack of 10", "Slim")),
    Category("Toys", 12, 0.60, 1.50, (7, 95), (12, 18, 24), ("Brickaboo", "Wunderwood"),
             ("Building Set", "Wooden Train", "Puzzle", "Plush Bear", "Board Game", "Marble Run"),
             ("Starter", "Deluxe", "500 Pieces", "Junior", "Travel", "Space")),
    Category("Pet", 5, 0.08, 1.25, (6, 70), (6, 12, 20), ("Pawsome Acre", "Felix & Rue"),
             ("Dry Dog Food", "Cat Litter", "Chew Toy", "Pet Bed", "Grooming Brush"),
             ("2 kg", "8 kg", "Grain Free", "Large", "Senior", "Kitten")),
)  # fmt: skip

POWER_BANK: Final = Product(
    "SKU-4482", "Voltara 20,000 mAh USB-C Power Bank", "Power", "SUP-017", 3990, 1655, carton=48, weight_g=385
)
_POWER_BANK_CENTERS: Final = ("SHA", "SIN", "RTM", "LAX")


def make_products() -> tuple[Product, ...]:
    """Three hundred products in the order of their codes."""
    rng = random.Random(SEED)
    codes = iter(
        rng.sample([n for n in range(4000, 5000) if n != 4482], len(CATEGORIES) * SKUS_PER_CATEGORY - 1)
    )
    products = [POWER_BANK]
    for category in CATEGORIES:
        names = [
            f"{brand} {variant} {thing}"
            for brand in category.brands
            for thing in category.things
            for variant in category.variants
        ]
        suppliers = [supplier for supplier in SUPPLIERS if category.name in supplier.categories]
        wanted = SKUS_PER_CATEGORY - (category.name == POWER_BANK.category)
        for name in rng.sample(names, wanted):
            price_cents = round(rng.uniform(*category.price)) * 100 - rng.choice((1, 5, 10, 50))
            products.append(
                Product(
                    sku=f"SKU-{next(codes)}",
                    name=name,
                    category=category.name,
                    supplier_id=rng.choice(suppliers).supplier_id,
                    price_cents=price_cents,
                    cost_cents=round(price_cents * rng.uniform(0.36, 0.58)),
                    carton=rng.choice(category.carton),
                    weight_g=rng.randrange(90, 2400, 5),
                )
            )
    return tuple(sorted(products))


def make_stocked(products: tuple[Product, ...]) -> tuple[Stocked, ...]:
    """Which center keeps which product, in the order of product and center codes."""
    rng = random.Random(SEED + 1)
    suppliers = {supplier.supplier_id: supplier for supplier in SUPPLIERS}
    centers = {center.code: center for center in CENTERS}
    stocked = []
    for product in products:
        codes = rng.sample(sorted(centers), rng.choice(CENTERS_PER_SKU))
        if product == POWER_BANK:
            codes = list(_POWER_BANK_CENTERS)
        stocked += [Stocked(product, centers[code], suppliers[product.supplier_id]) for code in sorted(codes)]
    return tuple(stocked)
