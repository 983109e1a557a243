"""A Django application of one file of settings. Usage: manage.py DATABASE migrate [NAME] | manage.py DATABASE write NUMBER"""

import sys

import django
from django.conf import settings
from django.core.management import call_command

database, command, *rest = sys.argv[1:]
settings.configure(
    INSTALLED_APPS=["shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database, "OPTIONS": {"timeout": 30}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

if command == "migrate":
    call_command("migrate", "shop", *rest, verbosity=0)
elif command == "write":
    from shop.models import Order, Product

    number = int(rest[0])
    tea = Product.objects.create(id=100 + number, name=f"tea {number}", price="2.50", stock=number)
    Order.objects.create(id=100 + number, product=tea, amount=number, note="from Django")
    Product.objects.filter(id=number).update(name=f"renamed {number}")
    Order.objects.filter(id=number).delete()
else:
    sys.exit(f"no such command: {command}")
