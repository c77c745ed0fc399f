"""The status page in a real browser: what people see, that it keeps itself true, and that text stays text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from dispatcher.cluster import names
from dispatcher.decisions.fairness import Lane
from dispatcher.web.request_rows import QueueFacts, together
from dispatcher.web.status_rows import PortalProgress
from tests.dispatcher.web import status_world
from tests.dispatcher.web.status_world import Shown, crowd, job, reported_job, running_job, team_job
from tests.world.browser import Tab
from tests.world.builders import running, terminated

OpenTab = Callable[..., Tab]
FOCUSED = """() => {
    const e = document.activeElement, style = getComputedStyle(e);
    const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
    return [e.id || e.getAttribute('href') || e.textContent, seen];
}"""
HTML = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>bold</b>"
WATCH_LONG_TASKS = """() => {
    window.longTasks = [];
    new PerformanceObserver(list => window.longTasks.push(...list.getEntries().map(e => e.duration)))
        .observe({type: 'longtask', buffered: true});
}"""


@pytest.fixture
def shown() -> Iterator[Shown]:
    with status_world.served() as made:
        yield made


def row(tab: Tab, model: str) -> Any:
    name = tab.page.get_by_role("rowheader").get_by_text(model, exact=True)
    return tab.page.get_by_role("row").filter(has=name)


def ask(tab: Tab) -> None:
    """What the page does by itself every three seconds, now."""
    tab.page.evaluate("ask()")


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 760), (True, 320)])
def test_a_busy_day_is_readable_in_both_schemes_and_on_a_phone(
    shown: Shown, open_tab: OpenTab, dark: bool, width: int
) -> None:
    status_world.busy(shown, time.time())
    shown.not_ready.append("intake pauses: the portal at https://portal.example.com did not answer within 30 s")
    tab = open_tab(shown.url, dark=dark, width=width)
    row(tab, "model-tumours").wait_for()
    assert tab.low_contrast() == []
    assert tab.sticking_out() == []
    assert tab.nameless() == []
    assert tab.complaints() == []


def test_each_section_says_what_there_is_and_screen_readers_get_tables(shown: Shown, open_tab: OpenTab) -> None:
    status_world.busy(shown, time.time())
    for width in (1280, 320):  # a phone's layout must not take the roles away
        tab = open_tab(shown.url, width=width)
        row(tab, "model-tumours").wait_for()
        for name, rows in (("Running", 5), ("Waiting", 7), ("Ended", 6), ("Refused", 3)):
            assert tab.page.get_by_role("table", name=name).get_by_role("row").count() == rows + 1
        assert row(tab, "model-heart-rate").get_by_role("rowheader").count() == 1
    tab = open_tab(shown.url)
    bar = tab.page.get_by_role("progressbar", name="Progress of model-tumours")
    assert bar.evaluate("bar => bar.value / bar.max") == 0.7
    tab.page.get_by_role("img", name="Training loss from 1.08 in epoch 1 to 0.195 in epoch 14, lowest").wait_for()
    assert "4 GPUs" not in row(tab, "model-70fb5fb0-9b8a-4b9f-9f6f-2cc4e7b11de8").inner_text()
    assert row(tab, "model-70fb5fb0-9b8a-4b9f-9f6f-2cc4e7b11de8").get_by_role("cell").all_inner_texts()[3:] == [
        "4",
        "2\n2 disrupted",
        "gpu-h100-01",
    ]
    assert "OutOfMemory" in row(tab, "model-heart-rate").inner_text()
    assert tab.page.title() == "5 running, 7 waiting – Training dispatcher"


def test_of_several_nodes_the_page_says_how_many_run_and_where(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    shown.put([team_job("whole", now - 60, "gpu-1", "gpu-2", of=2), team_job("torn", now - 60, "gpu-3", of=2)])
    tab = open_tab(shown.url, width=1280)
    row(tab, "model-torn").wait_for()
    whole, torn = (row(tab, f"model-{name}").get_by_role("cell").all_inner_texts() for name in ("whole", "torn"))
    assert (whole[3], whole[5]) == ("16\n2 nodes", "gpu-1, gpu-2")
    assert torn[2] == "16\n1 of 2 nodes"
    assert "1 of 2 pods run" in torn[0]
    assert "24 GPUs in use" in tab.page.locator("#tiles").inner_text()
    assert tab.sticking_out() == []


def test_html_in_names_and_sentences_is_shown_as_text_and_runs_nowhere(shown: Shown, open_tab: OpenTab) -> None:
    shown.feeds.progress = {"uid-1": PortalProgress(HTML, 0.0)}
    shown.feeds.facts = QueueFacts(
        waiting=(status_world.a_message(HTML, 1.0),),
        poison=(status_world.an_entry(HTML, HTML, HTML, 1.0),),
        problem=HTML,
    )
    shown.not_ready.append(HTML)
    shown.put([running_job("1", 1.0, node=HTML, dataset=HTML), reported_job("2", 2.0, HTML, HTML)])
    tab = open_tab(f"{shown.url}?q=")
    row(tab, "model-1").wait_for()
    # Running: sentence, node, dataset. Waiting: name. Ended and refused: code, sentence; the refused one's name, cut.
    assert tab.page.locator("#sections").get_by_text("<b>bold</b>").count() >= 8
    assert tab.page.locator("#notices").get_by_text("<b>bold</b>").count() == 2
    assert tab.page.locator("main b, main img, main script").count() == 0
    tab.page.get_by_role("searchbox").fill(f"{HTML} nobody")
    tab.page.get_by_text("Nothing here matches").first.wait_for(state="attached")
    assert tab.page.evaluate("document.querySelectorAll('main b, main img, main script').length") == 0
    assert "owned" not in tab.page.title()
    assert tab.complaints() == []


def test_the_page_follows_the_world_by_itself(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    shown.put([(job("1", at=now), [])])
    tab = open_tab(shown.url)
    tab.page.get_by_role("table", name="Waiting").get_by_text("model-1").wait_for()
    shown.put([running_job("1", now)])
    tab.page.get_by_role("table", name="Running").get_by_text("model-1").wait_for()
    shown.put([reported_job("1", now, "Completed", "Model training completed successfully")])
    ask(tab)
    tab.page.get_by_role("table", name="Ended").get_by_text("completed", exact=True).wait_for()
    assert tab.page.get_by_role("table", name="Running").count() == 0
    assert tab.complaints() == []
    assert {url.split("?")[0].removeprefix(shown.url) for url in tab.requests} == {
        *("", "status.css", "shared.js", "overview.js", "status.js", "status.svg", "api/status")
    }


def test_what_a_person_is_reading_stays_while_the_page_follows(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    long = reported_job("2", now - 60, "UserCodeFailed", "A long story of what went wrong. " * 12)
    fits = "It fits where the window is wide enough for it. " * 4
    shown.feeds.facts = QueueFacts(poison=(status_world.an_entry("model-1", "NotJson", fits, now),))
    shown.put([long])
    tab = open_tab(shown.url)
    tab.page.get_by_role("button", name="Show all").click()
    assert tab.page.locator(".sentence.open").evaluate("text => text.scrollHeight <= text.clientHeight + 1")
    tab.page.get_by_role("button", name="Show less").wait_for()
    shown.put([long, reported_job("3", now, "Completed", "done")])
    ask(tab)
    row(tab, "model-3").wait_for()
    assert tab.page.get_by_role("button", name="Show less").get_attribute("aria-expanded") == "true"


def test_the_filter_finds_what_is_not_shown_and_is_kept_in_the_address(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    shown.put(running_job(f"many-{n:04}", now - 5000 + n) for n in range(400))
    tab = open_tab(shown.url)
    tab.page.get_by_text("1 to 50 of 400").wait_for()
    running = tab.page.get_by_role("table", name="Running").get_by_role("row")
    assert running.count() == 51
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("many-0399")
    tab.page.get_by_text("1 of 400", exact=True).wait_for()
    assert running.count() == 2
    assert tab.page.get_by_role("navigation", name="Pages of Running").count() == 0
    assert tab.page.url == f"{shown.url}?q=many-0399"
    again = open_tab(tab.page.url)
    again.page.get_by_text("1 of 400", exact=True).wait_for()
    tab.page.get_by_role("searchbox").fill("nobody")
    tab.page.get_by_text("Nothing here matches “nobody”.").wait_for()
    endless = open_tab(f"{shown.url}?q={'many+' * 99}")  # an address of somebody's: cut as the field cuts it
    endless.page.get_by_text("400 of 400").wait_for()
    assert tab.complaints() == []


def test_ten_thousand_jobs_are_paged_and_filtered_by_the_server_and_block_nothing(
    shown: Shown, open_tab: OpenTab
) -> None:
    now = time.time()
    crowd(shown, now, 10_000)
    tab = open_tab(shown.url)
    page = tab.page
    page.evaluate(WATCH_LONG_TASKS)
    pages = page.get_by_role("navigation", name="Pages of Running")
    pages.get_by_text("1 to 50 of 5,000").wait_for()
    assert page.title() == "5,000 running, 5,000 waiting – Training dispatcher"
    page.get_by_text("5,000 GPUs in use").wait_for()
    next_one, last = (pages.get_by_role("button", name=f"{word} page of Running") for word in ("Next", "Last"))
    next_one.focus()
    page.keyboard.press("Enter")
    pages.get_by_text("51 to 100 of 5,000").wait_for()
    row(tab, "model-r-0050").wait_for()
    assert row(tab, "model-r-0049").count() == 0
    page.get_by_text("Running: 51 to 100 of 5,000").wait_for(state="attached")
    last.click()
    pages.get_by_text("4,951 to 5,000 of 5,000").wait_for()
    row(tab, "model-r-4999").wait_for()
    row(tab, "model-w-0000").wait_for()  # the other sections stay where they are
    assert next_one.get_attribute("aria-disabled") == "true"
    shown.feeds.shown.clear()
    ask(tab)
    pages.get_by_text("4,951 to 5,000 of 5,000").wait_for()
    page.get_by_role("searchbox").fill("model-r-07")
    page.get_by_text("100 of 5,000", exact=True).wait_for()
    pages.get_by_text("1 to 50 of 100").wait_for()
    assert {model for _, model in shown.feeds.shown} == {f"r-07{n:02}" for n in range(50)}
    page.get_by_role("searchbox").fill("")
    pages.get_by_text("1 to 50 of 5,000").wait_for()
    assert page.locator("#sections tbody tr").count() == 100
    assert page.evaluate("document.querySelectorAll('*').length") < 2500
    assert page.evaluate("performance.getEntriesByType('resource').every(e => e.decodedBodySize < 300000)")
    assert page.evaluate("Math.max(0, ...window.longTasks)") < 1000  # with ten thousand rows it was several seconds
    assert (tab.low_contrast(), tab.sticking_out(), tab.nameless(), tab.complaints()) == ([], [], [], [])


def test_who_stands_on_a_last_page_that_is_gone_gets_the_one_that_is_last_now(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    shown.put(running_job(f"r-{n:03}", now - 500 + n) for n in range(120))
    tab = open_tab(shown.url)
    tab.page.get_by_role("button", name="Last page of Running").click()
    tab.page.get_by_text("101 to 120 of 120", exact=True).wait_for()
    shown.put(running_job(f"r-{n:03}", now - 500 + n) for n in range(70))
    tab.page.get_by_text("51 to 70 of 70", exact=True).wait_for()
    tab.page.get_by_role("button", name="Previous page of Running").click()
    tab.page.get_by_text("1 to 50 of 70", exact=True).wait_for()
    shown.put(running_job(f"r-{n:03}", now - 500 + n) for n in range(3))
    tab.page.get_by_role("navigation", name="Pages of Running").wait_for(state="detached")
    assert tab.page.get_by_role("table", name="Running").get_by_role("row").count() == 4


def test_the_page_says_that_it_lists_the_latest_where_more_have_ended(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    shown.put(reported_job(f"e-{n:04}", now - n, "Completed", "done") for n in range(1101))
    tab = open_tab(shown.url)
    tab.page.get_by_text("The latest 1,000. The cluster keeps older ones").wait_for()
    tab.page.get_by_text("1 to 50 of 1,000").wait_for()


def test_an_empty_house_says_what_to_do(shown: Shown, open_tab: OpenTab) -> None:
    tab = open_tab(shown.url, width=320)
    tab.page.get_by_text("dispatcher submit model-123").wait_for()
    tab.page.get_by_text("Nothing was refused").wait_for()
    assert (tab.low_contrast(), tab.sticking_out(), tab.nameless(), tab.complaints()) == ([], [], [], [])


def test_a_dispatcher_that_does_not_answer_is_said_to_and_the_rows_stay(shown: Shown, open_tab: OpenTab) -> None:
    shown.put([running_job("1", time.time())])
    tab = open_tab(shown.url)
    row(tab, "model-1").wait_for()
    port = int(shown.url.rsplit(":", 1)[1].strip("/"))
    shown.stop()
    # The page's clock, not ours: nobody waits for the twelve seconds.
    tab.page.evaluate("state.heard -= 40000")
    ask(tab)
    tab.page.get_by_text("The dispatcher does not answer", exact=True).wait_for()
    silence = tab.page.locator("#silence")
    assert "s ago" in silence.inner_text()
    assert silence.get_attribute("aria-live") == "off"  # it counts the seconds: nobody wants to hear each
    assert row(tab, "model-1").count() == 1
    assert tab.low_contrast() == []
    shown.start(port)
    ask(tab)
    tab.page.get_by_text("The dispatcher does not answer", exact=True).wait_for(state="detached")
    tab.page.get_by_text("The dispatcher answers again.").wait_for(state="attached")


def test_a_pause_of_the_intake_stands_above_everything(shown: Shown, open_tab: OpenTab) -> None:
    shown.not_ready.append("intake pauses: the portal is out of reach")
    tab = open_tab(shown.url)
    notice = tab.page.locator("#notices").get_by_text("No new request is taken now")
    notice.wait_for()
    assert tab.page.locator("#notices").get_attribute("role") == "status"
    shown.not_ready.clear()
    ask(tab)
    notice.wait_for(state="detached")


def reached(tab: Tab, number: int) -> list[str]:
    """What the next Tab keys come to; each has to show that it has the focus."""
    found = []
    for _ in range(number):
        tab.page.keyboard.press("Tab")
        name, seen = tab.page.evaluate(FOCUSED)
        assert seen, name
        found.append(name)
    return found


def test_everything_can_be_reached_by_keyboard_and_focus_is_seen(shown: Shown, open_tab: OpenTab) -> None:
    shown.put([reported_job("2", time.time(), "UserCodeFailed", "A long story of what went wrong. " * 12)])
    tab = open_tab(shown.url)
    tab.page.get_by_role("button", name="Show all").wait_for()
    order = [
        *("#main", "query", "#running", "#waiting", "#ended", "#refused", "By hour"),
        *("models/model-2", "Show all", "api/status"),
    ]
    assert reached(tab, len(order)) == order
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement === document.body"), "behind the last comes the browser itself"


def test_who_skips_the_header_comes_to_the_content_and_from_a_row_to_its_page_and_back(
    shown: Shown, open_tab: OpenTab
) -> None:
    shown.put([running_job("1", time.time() - 60)])
    tab = open_tab(f"{shown.url}?q=model-1")
    row(tab, "model-1").wait_for()
    keys = tab.page.keyboard
    keys.press("Tab")
    skip = tab.page.get_by_role("link", name="Skip to the trainings")
    assert skip.evaluate("link => link.getBoundingClientRect().top >= 0"), "it is seen while it has the focus"
    keys.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "main"
    assert reached(tab, 6)[-1] == "models/model-1"
    keys.press("Enter")
    tab.page.get_by_role("heading", name="model-1", level=1).wait_for()
    assert tab.page.url == f"{shown.url}models/model-1"
    assert reached(tab, 2) == ["#main", "../"]
    keys.press("Enter")
    row(tab, "model-1").wait_for()
    tab.page.go_back()
    tab.page.get_by_role("heading", name="model-1", level=1).wait_for()
    assert tab.complaints() == []


def test_a_filter_says_aloud_what_it_has_found(shown: Shown, open_tab: OpenTab) -> None:
    shown.put(running_job(f"r-{n}", time.time() - n) for n in range(3))
    tab = open_tab(shown.url)
    row(tab, "model-r-1").wait_for()
    tab.page.get_by_role("searchbox").fill("r-1")
    spoken = tab.page.locator("#spoken")
    spoken.get_by_text("Running: 1, Waiting: 0, Ended: 0, Refused: 0 match r-1").wait_for(state="attached")
    tab.page.get_by_role("searchbox").fill("")
    spoken.get_by_text("All are shown").wait_for(state="attached")


def test_the_last_day_is_told_in_numbers_by_hour_and_without_colours_alone(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    shown.put(
        [
            running_job("1", now - 60),
            reported_job("2", now - 9, "Completed", "done"),
            *(reported_job(f"3{n}", now - 9, "OutOfMemory", "too much") for n in range(2)),
        ]
    )
    tab = open_tab(shown.url, width=360)
    last_day = tab.page.get_by_role("region", name="Last 24 hours")
    last_day.get_by_text("OutOfMemory 2").wait_for()
    assert last_day.get_by_role("definition").all_inner_texts() == ["4", "1", "2 OutOfMemory 2"]
    last_day.get_by_text("By hour").click()
    hours = last_day.get_by_role("table", name="Trainings by hour").get_by_role("row")
    assert hours.count() == 25
    assert hours.nth(1).get_by_role("cell").all_inner_texts()[1:] == ["1", "2"]
    up, down = (
        last_day.locator(f"rect.{kind}").first.evaluate("bar => bar.y.baseVal.value") for kind in ("done", "fell")
    )
    assert up < down == 50, "what has failed hangs below the line"
    assert (tab.low_contrast(), tab.sticking_out(), tab.nameless(), tab.complaints()) == ([], [], [], [])


def test_of_several_queues_each_has_its_numbers_and_rows_name_theirs(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    shown.page.lanes = (Lane("urgent", 3), Lane("normal"))
    urgent = QueueFacts(340, 0, (replace(status_world.a_message("model-7", now), queue="urgent"),), name="urgent")
    normal = QueueFacts(problem="It cannot be read: it is down", name="normal")
    shown.feeds.facts = together([urgent, normal])
    shown.put([running_job("1", now, labels={names.QUEUE: "normal"})])
    tab = open_tab(shown.url, width=360)
    rows = part(tab, "Queues").get_by_role("row")
    assert rows.get_by_role("rowheader").all_inner_texts() == ["urgent", "normal\nIt cannot be read: it is down"]
    assert rows.nth(1).get_by_role("cell").all_inner_texts() == [
        *("Messages 340", "Poison 0", "Unfinished 0"),
        *("Room for 900", "Weight 3"),
    ]
    assert rows.nth(2).get_by_role("cell").all_inner_texts()[:3] == [
        "Messages not known",
        "Poison not known",
        "Unfinished 1",
    ]
    tab.page.get_by_text("Of the messages, about 340 on urgent, the first 32 on each queue").wait_for()
    tab.page.get_by_text("Not every queue can be read").wait_for()
    assert "queue normal" in row(tab, "model-1").inner_text()
    assert "queue urgent" in row(tab, "model-7").inner_text()
    assert (tab.low_contrast(), tab.sticking_out(), tab.nameless(), tab.complaints()) == ([], [], [], [])
    tab = open_tab(own(shown, "model-1"))
    part(tab, "Where it stands").get_by_text("normal", exact=True).wait_for()


# A model's own page


def own(shown: Shown, name: str) -> str:
    return f"{shown.url}models/{name}"


def part(tab: Tab, name: str) -> Any:
    return tab.page.get_by_role("region", name=name)


@pytest.mark.parametrize(
    ("dark", "width", "names"),
    [(False, 1280, ("model-tumours", "nobody")), (True, 360, ("model-heart-rate", "model-galaxies", "model-lost"))],
)
def test_a_models_own_page_is_readable_in_both_schemes_and_on_a_phone(
    shown: Shown, open_tab: OpenTab, dark: bool, width: int, names: tuple[str, ...]
) -> None:
    status_world.busy(shown, time.time())
    for name in names:
        tab = open_tab(own(shown, name), dark=dark, width=width)
        part(tab, "Where it stands").get_by_text("Next").wait_for()
        assert (tab.low_contrast(), tab.sticking_out(), tab.nameless()) == ([], [], []), name
        assert [said for said in tab.complaints() if "404" not in said] == []
        words = set(tab.page.locator("main").inner_text().split())
        assert not words & {"false", "true", "null", "undefined", "NaN", "[object"}, (
            "a value that nobody turned into words"
        )


def test_its_own_page_tells_each_attempt_with_node_and_end_and_who_holds_it(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    again, _ = running_job("again", now - 900, status={"active": 1, "failed": 1})
    first = status_world.pod(
        again,
        now - 890,
        phase="Failed",
        node="gpu-1",
        state=terminated(137, reason="OOMKilled", finished_at=now - 500),
        scheduled_at=now - 888,
    )
    second = status_world.pod(
        again, now - 490, phase="Running", node="gpu-2", state=running(now - 400), scheduled_at=now - 488
    )
    shown.put([(again, [first, second])])
    tab = open_tab(own(shown, "model-again"))
    steps = part(tab, "Timeline").get_by_role("table")
    assert all(steps.get_by_role("columnheader").all_inner_texts()), "each column has a name"
    heads = steps.get_by_role("rowheader").all_inner_texts()
    assert heads[:3] == ["on the queue", "being launched", "Attempt 1 on gpu-1"]
    assert "Attempt 2 on gpu-2" in heads
    assert "OutOfMemory" in steps.inner_text()
    assert "6 min so far" in steps.inner_text()
    assert part(tab, "Pods").get_by_role("row").count() == 3
    facts = part(tab, "Where it stands")
    assert "the trainer" in facts.inner_text()
    assert tab.page.title() == "model-again: running – Training dispatcher"


def test_the_link_survives_a_reload_and_the_page_follows_its_model(shown: Shown, open_tab: OpenTab) -> None:
    now = time.time()
    shown.feeds.facts = QueueFacts(depth=1, waiting=(status_world.a_message("model-1", now - 20),))
    tab = open_tab(own(shown, "model-1"))
    part(tab, "Where it stands").get_by_text("Not taken from the queue yet").wait_for()
    assert part(tab, "Timeline").count() == 0
    part(tab, "Its requests on the queues").get_by_text("m-1").wait_for()
    tab.page.reload()
    part(tab, "Where it stands").get_by_text("on the queue").wait_for()
    shown.feeds.facts = QueueFacts(depth=0)
    shown.put([running_job("1", now)])
    ask(tab)
    part(tab, "Timeline").get_by_text("the trainer", exact=True).wait_for()
    tab.page.locator("#spoken").get_by_text("model-1: running: The trainer runs").wait_for(state="attached")
    assert part(tab, "Its requests on the queues").count() == 0
    shown.put([reported_job("1", now, "OutOfMemory", "It took too much")])
    ask(tab)
    part(tab, "Where it stands").get_by_text("Set the model to Reconfigure at the portal").wait_for()
    tab.page.locator("#spoken").get_by_text("model-1: failed, OutOfMemory").wait_for(state="attached")
    assert tab.complaints() == []


def test_a_name_that_nobody_knows_gets_help(shown: Shown, open_tab: OpenTab) -> None:
    shown.put([running_job("123", time.time())])
    tab = open_tab(own(shown, "123"))
    stands = part(tab, "Where it stands")
    stands.get_by_text("dispatcher explain 123").wait_for()
    assert stands.get_by_role("link", name="the list, filtered by this name").get_attribute("href") == "../?q=123"
    stands.get_by_role("link", name="look at model-123").click()
    part(tab, "Where it stands").get_by_text("The trainer runs").wait_for()


def test_a_name_with_html_and_slashes_has_its_page_and_runs_nothing(shown: Shown, open_tab: OpenTab) -> None:
    name = f"a/b?c#d%{HTML}"[:100]
    shown.feeds.facts = QueueFacts(poison=(status_world.an_entry(name, "InvalidContainerName", HTML, 1.0),))
    tab = open_tab(shown.url)
    tab.page.get_by_role("table", name="Refused").get_by_role("link").click()
    part(tab, "Its requests on the queues").get_by_text("in the poison queue").wait_for()
    assert tab.page.get_by_role("heading", level=1).inner_text() == name
    assert tab.page.locator("main b, main img, main script").count() == 0
    assert tab.page.title().startswith(name), "shown as it is, and not run"
    assert tab.complaints() == []
    shown.feeds.facts = QueueFacts(poison=(status_world.an_entry("..", "InvalidContainerName", "dots", 1.0),))
    tab = open_tab(shown.url)
    row(tab, "..").wait_for()
    assert tab.page.get_by_role("table", name="Refused").get_by_role("link").count() == 0
