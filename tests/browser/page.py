"""The dashboard's page in a browser, as tests look at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.engine.conftest import eventually

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

    from tests.dashboard import Served

_TOO_FAINT = (Path(__file__).parent / "contrast.js").read_text()


class Page:
    """A browser that shows the dashboard."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, served: Served) -> None:
        """As a user does: by the file."""
        self.driver.get(served.access.opener.as_uri())
        eventually(lambda: self.driver.current_url == f"{served.base}/", what="the page is open")
        eventually(lambda: self.connection == "live", what="the page is told")

    def forget(self) -> None:
        """Removes what the browser keeps."""
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        for kind in ("performance", "browser"):
            self.driver.get_log(kind)
        self.driver.get("about:blank")

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        """The visible text of the first such element; empty where there is none, also where it has just gone."""
        return str(self.script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    @property
    def connection(self) -> str:
        return self.text("#connection")

    def node(self, cluster: str, name: str) -> str:
        """The selector of a node's card."""
        return f'.cluster[data-key="{cluster}"] .node[data-key="{name}"]'

    def state(self, cluster: str, name: str) -> str:
        """What a node's card says of its state."""
        return self.text(f"{self.node(cluster, name)} [data-part=state]")

    def on(self, cluster: str, name: str) -> list[str]:
        """What a node's card says that runs on it."""
        chips = f"{self.node(cluster, name)} .chip .name"
        return list(self.script("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", chips))

    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def requested(self) -> list[str]:
        """The addresses that the browser asked for since it was asked last."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("chrome:", "data:", "about:"))]

    def errors(self) -> list[str]:
        """What the browser complained about since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def too_faint(self) -> list[str]:
        """Texts that are hard to read."""
        return list(self.script(_TOO_FAINT))
