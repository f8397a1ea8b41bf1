"""`moorage mirror sync` and its schedules, on a data directory and through the API."""

import json

import pytest

from tests.cli.moorage import Moorage

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _near(moorage: Moorage) -> None:
    moorage.run("mirror", "add", "near", "--upstream", "http://127.0.0.1:1", "--allow-private")


def test_a_sync_reports_that_the_upstream_fails(moorage: Moorage) -> None:
    said = moorage.run("mirror", "sync", "near", "--json", expect=1)
    run = json.loads(said.stdout)
    assert (run["state"], run["mirror"], run["schedule"]) == ("failed", "near", None)
    assert "cannot reach http://127.0.0.1:1" in run["notes"][0]
    listed = moorage.run("mirror", "syncs", "near").stdout
    assert "failed" in listed
    shown = moorage.run("mirror", "syncs", "near", str(run["id"])).stdout
    assert shown.startswith(f"Sync {run['id']} of near failed: 0 tags copied")
    assert "has ended already" in moorage.fails("mirror", "cancel", "near", str(run["id"]))
    assert "no run 99 of near" in moorage.fails("mirror", "syncs", "near", "99")


def test_schedules_are_added_listed_and_removed(moorage: Moorage) -> None:
    schedule = ("mirror", "sync", "near", "--repo", "apps/**", "--tags", "newest:3", "--every")
    added = moorage.run(*schedule, "6h").stdout
    assert added == "Schedule 1: near is synchronized every 6h.\n"
    assert "has a schedule with these options" in moorage.fails(*schedule, "12h")
    assert "at least 60 s" in moorage.fails(*schedule, "1s")
    assert "is not a duration" in moorage.fails(*schedule, "daily")
    (found,) = moorage.json("mirror", "show", "near")["schedules"]
    assert (found["every"], found["options"]["repositories"]) == ("6h", ["apps/**"])
    assert "apps/**" in moorage.run("mirror", "show", "near").stdout
    assert "newest:3" in moorage.run("mirror", "syncs", "near").stdout
    moorage.run("mirror", "unschedule", "near", "1")
    assert moorage.json("mirror", "show", "near")["schedules"] == []
    assert "no schedule 1 of near" in moorage.fails("mirror", "unschedule", "near", "1")
    events = moorage.json("audit", "list", "--event", "mirror.*")["events"]
    assert {"mirror.schedule", "mirror.unschedule"} <= {each["event"] for each in events}


def test_invalid_options_are_refused(moorage: Moorage) -> None:
    sync = ("mirror", "sync", "near")
    for options, words in (
        (["--tags", ">=latest"], "is not a range of versions"),
        (["--platform", "amd64"], "is not a platform"),
        (["--repo", "A B"], "invalid pattern"),
        (["--prune"], "confirm with --yes"),
    ):
        assert words in moorage.fails(*sync, *options)
    assert "no mirror other" in moorage.fails("mirror", "sync", "other")
    moorage.run("mirror", "remove", "near")
    assert "no mirror near" in moorage.fails("mirror", "syncs", "near")
