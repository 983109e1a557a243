from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_stock_and_note")]
    operations = [
        migrations.AlterField("product", "name", models.CharField(max_length=200, unique=True)),
    ]
