from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("notes", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Use",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("request_id", models.CharField(max_length=128)),
                ("endpoint", models.CharField(max_length=100)),
                ("owner", models.CharField(max_length=100)),
                ("result", models.CharField(max_length=100)),
                ("tokens", models.PositiveIntegerField()),
            ],
        ),
    ]
