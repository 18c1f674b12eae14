"""Nothing. It was never released, and made the context `json`, which 0006 does in one go with the rest."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Change nothing."""
