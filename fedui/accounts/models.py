from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """A person who signs in. Rights come from memberships of federations, not from here."""
