from django.db import migrations, models


def stock_up(apps, _schema_editor):
    apps.get_model("shop", "Product").objects.filter(id=3).update(stock=30)


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        # On SQLite each of these makes the table anew.
        migrations.AddField("product", "stock", models.IntegerField(default=0)),
        migrations.AddField("order", "note", models.TextField(default="none")),
        migrations.RunPython(stock_up, migrations.RunPython.noop),
        migrations.AlterField("order", "amount", models.PositiveIntegerField()),
    ]
