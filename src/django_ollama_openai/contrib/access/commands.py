"""The subcommands ``keys``, ``workspaces`` and ``limits`` of ``manage.py ollama``."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.utils.text import slugify
from django.utils.timezone import now

from ..._ids import parse_public_id
from ...management.subcommands import ActionsSubcommand
from ...management.terminal import Terminal, local_time
from ._members import LastOwnerError, is_member, keep_an_owner
from .conf import access_settings
from .models import APIKey, Limit, Membership, Per, Role, Target, Unit, Workspace
from .pricing import pricer
from .validators import SCOPES

__all__ = ["Keys", "Limits", "Workspaces", "find_workspace"]

_DURATION: Final = re.compile(r"(\d{1,6})([smhdw])")
#: 100 years.
MAX_LIFETIME: Final = timedelta(days=36_500)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


_WORKSPACE: Final = "The slug, id or name of the workspace."
_PATTERNS: Final = "Models that may be used, such as 'llama3*'; may be repeated. Default: all."
_TARGETS: Final = (
    "everybody, each_workspace, each_user, each_key, workspace:WORKSPACE, user:USERNAME or key:ID"
)


class Keys(ActionsSubcommand):
    help = "Create, list, rotate and revoke API keys."

    def add_actions(self, add: Callable[[Callable[..., None], str, str], CommandParser]) -> None:
        create = add(self.create, "create", "Create a key and print it. It is shown once.")
        create.add_argument("name", metavar="NAME")
        create.add_argument("--user", metavar="USERNAME", help="The user that the key acts for.")
        create.add_argument("--workspace", metavar="WORKSPACE", help=_WORKSPACE)
        create.add_argument(
            "--scope",
            metavar="SCOPE",
            action="append",
            dest="scopes",
            help=f"One of {', '.join(SCOPES)}; may be repeated. Default: all except admin.",
        )
        create.add_argument(
            "--model", metavar="PATTERN", action="append", dest="models", help=_PATTERNS
        )
        create.add_argument(
            "--network",
            metavar="CIDR",
            action="append",
            dest="networks",
            help="A network that may use the key, such as 10.0.0.0/8; may be repeated.",
        )
        create.add_argument(
            "--expires",
            metavar="DURATION",
            type=_lifetime,
            help="How long the key is valid, such as 12h or 30d. Default: without end.",
        )
        add(self.list, "list", "List all keys, without their values.")
        revoke = add(self.revoke, "revoke", "Revoke a key. It is refused from now on.")
        revoke.add_argument("id", metavar="ID")
        rotate = add(
            self.rotate, "rotate", "Give a key a new value and print it. It is shown once."
        )
        rotate.add_argument("id", metavar="ID")
        rotate.add_argument(
            "--overlap",
            metavar="DURATION",
            type=_overlap,
            default=timedelta(hours=24),
            help="How long the previous values remain valid. Default: 24h.",
        )

    def create(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """Create an API key and print it."""
        key = APIKey(
            name=options["name"],
            user=_user(options["user"]),
            workspace=options["workspace"] and find_workspace(options["workspace"]),
            scopes=options["scopes"],
            models=options["models"],
            networks=options["networks"],
            expires_at=None if options["expires"] is None else now() + options["expires"],
        )
        if key.user is None and key.workspace is None:
            raise CommandError("A key needs --user, --workspace, or both.")
        if key.user and key.workspace and not is_member(key.workspace, key.user):
            raise CommandError(f"{options['user']} is not a member of {key.workspace}.")
        key.full_clean()
        with transaction.atomic():
            key.save()
            value = key.new_secret(access_settings().KEY_PREFIX)
        terminal.line(value)
        user = key.user
        if key.scopes and "admin" in key.scopes and user and not user.is_superuser:
            terminal.write_stderr(
                f"{user} is not a superuser, and may administer all workspaces with this key.\n"
            )

    def list(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """List all keys."""
        keys = APIKey.objects.select_related("user", "workspace").prefetch_related("secrets")
        rows = [
            (
                key.public_id,
                key.name,
                str(max(key.secrets.all(), key=lambda secret: secret.pk, default="")),
                "" if key.user is None else key.user.get_username(),
                "" if key.workspace is None else key.workspace.slug,
                "" if key.scopes is None else ",".join(key.scopes),
                local_time(key.last_used_at),
                f"revoked {local_time(key.revoked_at)}"
                if key.revoked_at
                else local_time(key.expires_at),
            )
            for key in keys.order_by("pk")
        ]
        terminal.table(
            ("ID", "NAME", "KEY", "USER", "WORKSPACE", "SCOPES", "LAST USED", "EXPIRES"), rows
        )

    def revoke(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """Revoke a key."""
        _find(APIKey, options["id"]).revoke()
        terminal.info(f"Revoked {options['id']}.")

    def rotate(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """Rotate a key, and print its new value."""
        key = _find(APIKey, options["id"])
        if key.revoked_at is not None:
            raise CommandError("This key is revoked.")
        terminal.line(key.rotate(access_settings().KEY_PREFIX, options["overlap"]))


class Workspaces(ActionsSubcommand):
    help = "Create and list workspaces, and add members to them."

    def add_actions(self, add: Callable[[Callable[..., None], str, str], CommandParser]) -> None:
        create = add(self.create, "create", "Create a workspace and print its id.")
        create.add_argument("name", metavar="NAME")
        create.add_argument(
            "--owner", metavar="USERNAME", required=True, help="The user who owns the workspace."
        )
        create.add_argument(
            "--slug", metavar="SLUG", help="The name in commands. Default: made from NAME."
        )
        create.add_argument(
            "--model", metavar="PATTERN", action="append", dest="models", help=_PATTERNS
        )
        add(self.list, "list", "List all workspaces.")
        member = add(self.add, "add", "Add a user to a workspace, or change their role.")
        member.add_argument("workspace", metavar="WORKSPACE", help=_WORKSPACE)
        member.add_argument("user", metavar="USERNAME")
        member.add_argument(
            "--role",
            choices=Role.values,
            default=Role.MEMBER.value,
            help="Owners and admins manage members and keys. Default: member.",
        )

    def create(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """Create a workspace and print its id."""
        slug = options["slug"] or slugify(options["name"]) or "workspace"
        row = Workspace(name=options["name"], slug=slug, models=options["models"])
        row.full_clean()
        with transaction.atomic():
            row.save()
            Membership.objects.create(workspace=row, user=_user(options["owner"]), role=Role.OWNER)
        terminal.line(row.public_id)

    def list(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """List all workspaces."""
        rows = [
            (
                row.public_id,
                row.slug,
                row.name,
                str(row.memberships.count()),
                "" if row.is_active else "inactive",
            )
            for row in Workspace.objects.order_by("pk")
        ]
        terminal.table(("ID", "SLUG", "NAME", "MEMBERS", ""), rows)

    def add(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """Add a member."""
        workspace, user = find_workspace(options["workspace"]), _user(options["user"])
        role = Role(options["role"])
        try:
            with transaction.atomic():
                keep_an_owner(workspace, user, role)
                Membership.objects.update_or_create(
                    workspace=workspace, user=user, defaults={"role": role}
                )
        except LastOwnerError as error:
            raise CommandError(str(error)) from error
        terminal.info(f"{options['user']} is {options['role']} of {workspace}.")


class Limits(ActionsSubcommand):
    help = "Set, list and remove limits."

    def add_actions(self, add: Callable[[Callable[..., None], str, str], CommandParser]) -> None:
        limit = add(
            self.set, "set", "Set a limit, or change the amount of an equal one, and print its id."
        )
        limit.add_argument(
            "--target",
            required=True,
            help=f"{_TARGETS}.",
        )
        limit.add_argument(
            "--unit", choices=Unit.values, required=True, help="The unit of the amount."
        )
        limit.add_argument(
            "--amount",
            type=_amount,
            required=True,
            help="The most that may be used; 0 to refuse all.",
        )
        limit.add_argument(
            "--per",
            choices=Per.values,
            help="The period. Required, except for the unit concurrent.",
        )
        limit.add_argument(
            "--model",
            metavar="PATTERN",
            default="*",
            help="The models that are limited, such as 'llama3*'. Default: all.",
        )
        limit.add_argument(
            "--timezone",
            default="UTC",
            metavar="ZONE",
            help="The time zone of days, weeks and months, such as Europe/Berlin. Default: UTC.",
        )
        add(self.list, "list", "List all limits.")
        remove = add(self.remove, "remove", "Remove a limit.")
        remove.add_argument("id", metavar="ID")

    def set(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """Set a limit and print its id."""
        limit = Limit(
            unit=options["unit"],
            amount=options["amount"],
            per=options["per"] or "",
            model=options["model"],
            timezone=options["timezone"],
            **_target(options["target"]),
        )
        limit.full_clean(validate_unique=False, validate_constraints=False)
        terminal.line(limit.put().public_id)
        if limit.unit == Unit.COST and pricer() is None:
            terminal.write_stderr("This limit has no effect, since requests have no prices.\n")

    def list(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """List all limits."""
        rows = [
            (row.public_id, row.describe_target(), row.in_english(), row.model, row.timezone)
            for row in Limit.objects.select_related("workspace", "user", "key").order_by("pk")
        ]
        terminal.table(("ID", "TARGET", "LIMIT", "MODEL", "TIME ZONE"), rows)

    def remove(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """Remove a limit."""
        _find(Limit, options["id"]).delete()
        terminal.info(f"Removed {options['id']}.")


def _overlap(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(
            f"{text!r} is not a duration. Use a number with s, m, h, d or w, such as 30d."
        )
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def _lifetime(text: str) -> timedelta:
    lifetime = _overlap(text)
    if not lifetime or lifetime > MAX_LIFETIME:
        raise ArgumentTypeError(f"{text!r} is not between 1s and {MAX_LIFETIME.days}d.")
    return lifetime


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise ArgumentTypeError(f"{text!r} is not a number.")
    return amount


def _find(model: Any, public: str) -> Any:
    pk = parse_public_id(model.prefix, public)
    found = None if pk is None else model.objects.filter(pk=pk).first()
    if found is None:
        raise CommandError(
            f"There is no {model._meta.verbose_name} {public!r}. Use an id as listed by 'list'."
        )
    return found


def _user(username: str | None) -> Any:
    if username is None:
        return None
    users = get_user_model()
    found = users._default_manager.filter(**{users.USERNAME_FIELD: username}).first()
    if found is None:
        raise CommandError(f"There is no user {username!r}.")
    return found


def find_workspace(text: str) -> Workspace:
    found = Workspace.objects.filter(slug=text).first()
    if found is None:
        named = list(Workspace.objects.filter(name=text)[:2])
        if len(named) > 1:
            raise CommandError(f"Several workspaces are called {text!r}. Use the slug or the id.")
        found = named[0] if named else _find(Workspace, text)
    return found


def _target(text: str) -> dict[str, Any]:
    kind, _, name = text.partition(":")
    match kind:
        case Target.WORKSPACE if name:
            return {"target": kind, "workspace": find_workspace(name)}
        case Target.USER if name:
            return {"target": kind, "user": _user(name)}
        case Target.KEY if name:
            return {"target": kind, "key": _find(APIKey, name)}
        case Target.EVERYBODY | Target.EACH_WORKSPACE | Target.EACH_USER | Target.EACH_KEY:
            if not name:
                return {"target": kind}
    raise CommandError(f"{text!r} is not a target. Use {_TARGETS}.")
