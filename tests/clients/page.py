"""The built-in page in a real Chromium, which playwright drives.

    pip install playwright && playwright install chromium      # or --chromium /usr/bin/chromium
    nfl serve --port 11500 &
    python tests/clients/page.py http://127.0.0.1:11500 [--model NAME] [--pictures FOLDER]

Without --model, what models say is played, so that it can be hostile; with it, a model of the server answers too.
"""

import argparse
import json
import pathlib

from playwright.sync_api import expect, sync_playwright

HOSTILE = """Here <img src=x onerror="document.title='taken'"> and <script>document.title='taken'</script>.

```html
<b>bold</b>
```

It is `code`, and [a link](javascript:document.title='taken')."""

TAGS = {"models": [
    {"name": "qwen3:4b", "size": 2_600_000_000, "details": {"parameter_size": "4.0B", "quantization_level": "Q4_K_M"},
     "capabilities": ["completion", "thinking"]},
    {"name": "<b>odd</b>:latest", "size": 64_000_000, "details": {}, "capabilities": ["completion"]},
    {"name": "nomic-embed-text:latest", "size": 274_000_000, "details": {"parameter_size": "137M"},
     "capabilities": ["embedding"]},
]}


def lines(text):
    parts = [{"message": {"role": "assistant", "content": "", "thinking": "Let me <i>see</i>."}, "done": False}]
    parts += [{"message": {"role": "assistant", "content": text[at:at + 7]}, "done": False}
              for at in range(0, len(text), 7)]
    parts.append({"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
                  "eval_count": 42, "eval_duration": 2_000_000_000})
    return "".join(json.dumps(part) + "\n" for part in parts)


def opened(browser, arguments, problems, **options):
    page = browser.new_context(**options).new_page()
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: request.url.startswith((arguments.url, "data:")) or problems.append(request.url))
    return page


def played(page, arguments):
    """What models say is made up here."""
    asked = []
    page.route("**/api/tags", lambda route: route.fulfill(json=TAGS))

    def chat(route):
        asked.append(route.request.post_data_json)
        route.fulfill(body=lines(HOSTILE), content_type="application/x-ndjson")

    page.route("**/api/chat", chat)
    page.goto(arguments.url)
    expect(page.locator("#dot")).to_have_class("dot on")
    expect(page.locator("#memory")).to_contain_text("free")
    expect(page.locator("#send")).to_be_disabled()
    page.get_by_label("Message").fill("Hello <b>you</b>")
    page.keyboard.press("Enter")
    reply = page.locator("article.assistant")
    expect(reply).to_contain_text("and [a link]")
    expect(page.locator("article.user")).to_have_text("Hello <b>you</b>")
    expect(reply.locator("pre code")).to_have_text("<b>bold</b>")
    expect(reply.locator("p code")).to_have_text("code")
    for element in ["img", "script", "b", "i", "a"]:
        assert page.locator(f"#talk {element}").count() == 0, element
    assert page.title() == "nfl", page.title()
    expect(page.locator("#speed")).to_have_text("21.0 tokens/s")
    page.get_by_label("Message").fill("And again")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("article.assistant")).to_have_count(2)
    assert [message["role"] for message in asked[1]["messages"]] == ["user", "assistant", "user"]
    assert asked[1]["messages"][1]["content"] == HOSTILE
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the window"


def small(page, arguments):
    """On a phone, what there is lies behind a button; choosing a model puts it away."""
    page.route("**/api/tags", lambda route: route.fulfill(json=TAGS))
    page.goto(arguments.url)
    expect(page.locator("#memory")).to_be_hidden()
    page.get_by_role("button", name="Server").click()
    expect(page.locator("#memory")).to_be_visible()
    page.get_by_role("button", name="odd").click()
    expect(page.locator("#memory")).to_be_hidden()
    expect(page.get_by_label("Model", exact=True)).to_have_value("<b>odd</b>:latest")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the window"


def failing(page, arguments):
    """A server that refuses: the message comes back to be sent again."""
    page.route("**/api/tags", lambda route: route.fulfill(json=TAGS))
    page.route("**/api/chat", lambda route: route.fulfill(status=400, json={"error": "the prompt is <too> long"}))
    page.goto(arguments.url)
    page.get_by_label("Message").fill("Hello")
    page.keyboard.press("Enter")
    expect(page.locator("article.error")).to_have_text("the prompt is <too> long")
    expect(page.get_by_label("Message")).to_have_value("Hello")


def keyed(page, arguments):
    """A server that asks for a key."""
    def tags(route):
        allowed = route.request.headers.get("authorization") == "Bearer nfl-right"
        route.fulfill(status=200 if allowed else 401, json=TAGS if allowed else {"error": "a key"})

    page.route("**/api/tags", tags)
    page.goto(arguments.url)
    for key in ["nfl-wrong", "nfl-right"]:
        expect(page.get_by_text("This server asks for a key")).to_be_visible()
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Continue").click()
    expect(page.locator("#models")).to_contain_text("qwen3:4b")
    expect(page.locator("#ask")).to_be_hidden()


def real(page, arguments):
    """A model of the server answers, is stopped, and answers again."""
    page.goto(arguments.url)
    page.get_by_label("Model", exact=True).select_option(arguments.model)
    for stop in [True, False]:
        page.get_by_label("Message").fill("Once upon a time")
        page.keyboard.press("Enter")
        reply = page.locator("article.assistant").last
        expect(reply.locator("p").first).not_to_be_empty(timeout=60_000)
        if stop:
            page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=120_000)
    expect(page.locator("#loaded")).to_contain_text(arguments.model.removesuffix(":latest"), timeout=10_000)
    expect(page.locator("#speed")).to_contain_text("tokens/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--model")
    parser.add_argument("--pictures", type=pathlib.Path)
    parser.add_argument("--chromium", help="the browser's executable, when it is not playwright's own")
    arguments = parser.parse_args()
    wide, phone = {"width": 1200, "height": 800}, {"width": 390, "height": 780}
    cases = [("light", played, wide), ("dark", played, wide), ("light", played, phone), ("dark", small, phone), ("dark", failing, phone),
             ("light", keyed, wide)]
    if arguments.model:
        cases.append(("light", real, wide))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium)
        for colours, case, viewport in cases:
            problems = []
            page = opened(browser, arguments, problems, color_scheme=colours, viewport=viewport)
            case(page, arguments)
            # The browser itself reports statuses that a case brings about.
            problems = [problem for problem in problems if "status of 40" not in problem]
            assert not problems, problems
            name = f"{case.__name__}-{colours}-{viewport['width']}"
            if arguments.pictures:
                arguments.pictures.mkdir(exist_ok=True)
                page.screenshot(path=arguments.pictures / f"{name}.png")
            print(f"{name}: fine")
            page.context.close()


if __name__ == "__main__":
    main()
