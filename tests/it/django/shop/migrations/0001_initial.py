from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Product", [
            ("id", models.BigAutoField(primary_key=True)),
            ("name", models.CharField(max_length=50)),
            ("price", models.DecimalField(max_digits=8, decimal_places=2)),
        ]),
        migrations.CreateModel("Order", [
            ("id", models.BigAutoField(primary_key=True)),
            ("product", models.ForeignKey("shop.Product", on_delete=models.CASCADE)),
            ("amount", models.IntegerField()),
        ]),
    ]
