from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = [("sagas", "__first__")]
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("number", models.CharField(max_length=20)),
                ("state", models.CharField(default="new", max_length=20)),
            ],
        )
    ]
