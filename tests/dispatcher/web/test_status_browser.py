"""The status page in a real browser: what people see, that it keeps itself true, and that text stays text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatcher.web.request_rows import QueueFacts
from dispatcher.web.status_rows import PortalProgress
from tests.dispatcher.web import status_world
from tests.dispatcher.web.status_world import Shown, crowd, job, reported_job, running_job, team_job
from tests.world.browser import Tab

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
        *("", "status.css", "status.js", "status.svg", "api/status")
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
    assert page.locator("tbody tr").count() == 100
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


def test_everything_can_be_reached_by_keyboard_and_focus_is_seen(shown: Shown, open_tab: OpenTab) -> None:
    shown.put([reported_job("2", time.time(), "UserCodeFailed", "A long story of what went wrong. " * 12)])
    tab = open_tab(shown.url)
    tab.page.get_by_role("button", name="Show all").wait_for()
    reached = []
    for _ in range(7):
        tab.page.keyboard.press("Tab")
        reached.append(tab.page.evaluate(FOCUSED))
    assert [seen for _, seen in reached] == [True] * 7
    assert [name for name, _ in reached] == [
        *("query", "#running", "#waiting", "#ended", "#refused", "Show all", "api/status")
    ]
