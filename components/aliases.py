"""Moving the registry's aliases, each move audited: what a run may do by rule, and what a person may do by hand."""

from dataclasses import asdict
from datetime import date
from typing import Any

from components import audit
from components.audit import Action, Event
from components.context import Context
from components.errors import MfhError, ModelRegistryError
from components.model_registry import CANDIDATE, CHALLENGER, CHAMPION, ROLLED_BACK, Registry, Version
from components.promotion_rule import Ruling

# MLflow's tag of the registered model that holds the newest audit event's hash.
NEWEST_EVENT = "audit_newest"
MAX_REASON = 500

Moves = dict[str, tuple[str | None, str | None]]


def by_rule(registry: Registry, day: date, treatment: Version, baseline: Version, ruling: Ruling) -> str:
    """Give a day's treatment the alias that it has earned. The caller holds the lock.

    Args:
        registry: The pipeline's.
        day: Interval day.
        treatment: Its version.
        baseline: The baseline's version.
        ruling: What the rule says.

    Returns:
        What was done, or why nothing was.
    """
    aliases = registry.aliases()
    if ruling.alias == CHAMPION and (mark := treatment.tags.get(ROLLED_BACK)):
        # A retry or a backfill of the day must not undo what a person did.
        return (
            f"aliases left alone: version {treatment.number} was rolled back ({mark}); "
            f"'mfh model approve {treatment.number} --anyway --reason TEXT' brings it back"
        )
    after: dict[str, str | None] = {ruling.alias: treatment.number}
    if registry.context.pipeline.promotion.approval == "automatic" and CHAMPION not in {*aliases, ruling.alias}:
        # Something must serve: before any treatment has won, that is the baseline.
        after[CHAMPION] = baseline.number
    for other in (CANDIDATE, CHALLENGER):
        if other != ruling.alias and aliases.get(other) == treatment.number:
            after[other] = None
    facts = {"guardrails": [asdict(one) for one in ruling.guardrails]}
    _move(registry, "promote", ruling.reason, after, day=day.isoformat(), facts=facts)
    named = sorted((alias, number) for alias, number in after.items() if number is not None)
    return ", ".join(f"{alias} -> version {number}" for alias, number in named)


def approve(context: Context, number: str, reason: str, *, anyway: bool = False) -> Event:
    """Make a version the champion, by hand.

    Args:
        context: Pipeline and settings.
        number: The version.
        reason: Why, for the audit record.
        anyway: Also a version that is not the candidate.

    Returns:
        The audit event.

    Raises:
        ModelRegistryError: When there is no such version, it is not the candidate, or it could not serve.
    """
    why = _reason(reason)
    registry = Registry(context)
    with registry.lock():
        version = registry.version(number)
        aliases = registry.aliases()
        if not anyway and aliases.get(CANDIDATE) != number:
            waiting = aliases.get(CANDIDATE)
            who = f"version {waiting} is" if waiting else "no version is"
            raise ModelRegistryError(
                f"version {number} of {registry.name!r} does not wait for approval ({who}); '--anyway' approves it"
            )
        registry.require_usable(version)
        after: dict[str, str | None] = {CHAMPION: number}
        after |= {other: None for other in (CANDIDATE, CHALLENGER) if aliases.get(other) == number}
        event = _move(registry, "approve", why, after, day=version.day)
        if ROLLED_BACK in version.tags:
            registry.untag(number, ROLLED_BACK)
        return event


def roll_back(context: Context, reason: str, to: str | None = None) -> Event:
    """Give the champion's alias back to an earlier version.

    Args:
        context: Pipeline and settings.
        reason: Why, for the audit record.
        to: Which version; None for the champion before the present one.

    Returns:
        The audit event. The version that was the champion keeps a tag, so that no run promotes it again by itself.

    Raises:
        ModelRegistryError: When nothing served before, or the version could not serve.
    """
    why = _reason(reason)
    registry = Registry(context)
    with registry.lock():
        present = registry.aliases().get(CHAMPION)
        number = to or _before(registry, present)
        if number == present:
            raise ModelRegistryError(f"version {number} of {registry.name!r} is the champion already")
        version = registry.version(number)
        registry.require_usable(version)
        event = _move(registry, "rollback", why, {CHAMPION: number}, day=version.day)
        if present is not None and any(one.number == present for one in registry.versions()):
            registry.tag(present, **{ROLLED_BACK: f"{event.at} by {event.who}: {why}"})
        return event


def problems(context: Context) -> list[str]:
    """What is wrong with the registry: aliases that point nowhere, versions that could not serve, a broken record.

    Args:
        context: Pipeline and settings.

    Returns:
        One sentence per problem.

    Raises:
        ModelRegistryError: When the registry can not be read at all.
    """
    registry = Registry(context)
    found = []
    for alias in sorted(registry.aliases()):
        try:
            version = registry.behind(alias)
            if version is not None:
                registry.require_usable(version)
        except ModelRegistryError as error:
            found.append(str(error))
    return found + audit.broken(audit.read(context), newest_event(registry))


def _before(registry: Registry, present: str | None) -> str:
    served = audit.champions(audit.read(registry.context))
    earlier = [number for number in served if number != present]
    if not earlier:
        raise ModelRegistryError(
            f"the audit record of {registry.name!r} knows no champion before version {present}; name one with --to"
        )
    return earlier[-1]


def _move(registry: Registry, action: Action, why: str, after: dict[str, str | None], **more: Any) -> Event:
    """Write the event, then move: no alias ever moves without a record."""
    aliases = registry.aliases()
    moves: Moves = {alias: (aliases.get(alias), number) for alias, number in after.items()}
    if all(before == number for before, number in moves.values()):
        # A retry: everything is where it belongs, and the event that brought it there is in the record.
        events = [one for one in audit.read(registry.context) if one.action != "failed"]
        if events:
            return events[-1]
    run = {key: value for key, value in registry.context.run.items() if isinstance(value, str | int)}
    more["facts"] = {**run, **more.get("facts", {})}
    event = audit.append(registry.context, action, why, moves, **more)
    try:
        with registry.errors():
            for alias, number in after.items():
                if number is not None:
                    registry.client.set_registered_model_alias(registry.name, alias, number)
                elif alias in aliases:
                    registry.client.delete_registered_model_alias(registry.name, alias)
            registry.client.set_registered_model_tag(registry.name, NEWEST_EVENT, event.digest)
    except MfhError as error:
        audit.append(registry.context, "failed", str(error), moves)
        raise
    if (champion := after.get(CHAMPION)) is not None:
        registry.tag(champion, champion_since=event.at, champion_by=event.who, champion_why=why[:MAX_REASON])
    return event


def newest_event(registry: Registry) -> str:
    """Hash of the newest audit event as MLflow remembers it, empty where it remembers none."""
    with registry.errors():
        tags = registry.client.get_registered_model(registry.name).tags
    return str(tags.get(NEWEST_EVENT, ""))


def _reason(text: str) -> str:
    why = " ".join(text.split())
    if not why or len(why) > MAX_REASON or not why.isprintable():
        raise ModelRegistryError(f"a reason of 1 to {MAX_REASON} printable characters is needed for the audit record")
    return why
