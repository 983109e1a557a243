"""A Django project of one file of settings, with the admin and all that it needs. Usage: manage.py DATABASE COMMAND [ARGUMENT]...

migrate [APPLICATION [NAME]]   migrates everything, or an application, or that as far as NAME
write NUMBER                   changes the shop without a server
staff NAME...                  makes administrators; the password of each is their name and "-password"
serve PORT                     answers on 127.0.0.1

SHOP_OPTIONS holds the database's OPTIONS, as JSON; without it Django has its defaults.
"""

import json
import os
import sys

import django
from django.conf import settings
from django.core.management import call_command

database, command, *rest = sys.argv[1:]
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": database,
            "OPTIONS": json.loads(os.environ.get("SHOP_OPTIONS", "{}")),
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "shop",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    # Real ones take most of a second for each sign-in, on purpose.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF="shop.urls",
    # The same on every node, or no session of one is taken by another.
    SECRET_KEY="only-for-this-test",
    STATIC_URL="static/",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    USE_TZ=True,
)
django.setup()

if command == "migrate":
    call_command("migrate", *rest, verbosity=0)
elif command == "write":
    from shop.models import Order, Product

    number = int(rest[0])
    tea = Product.objects.create(id=100 + number, name=f"tea {number}", price="2.50", stock=number)
    Order.objects.create(id=100 + number, product=tea, amount=number, note="from Django")
    Product.objects.filter(id=number).update(name=f"renamed {number}")
    Order.objects.filter(id=number).delete()
elif command == "staff":
    from django.contrib.auth.models import User

    for name in rest:
        User.objects.create_superuser(name, password=f"{name}-password")
elif command == "serve":
    call_command("runserver", f"127.0.0.1:{rest[0]}", use_reloader=False)
else:
    sys.exit(f"no such command: {command}")
