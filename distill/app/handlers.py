"""What happens on the page: the functions behind its buttons, and the updates of what it shows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Final

import gradio as gr
from PIL import Image

from dataset.errors import UserError
from dataset.images.background import Background
from distill.app.inputs import Crop, CutOut
from distill.app.library import RunState
from distill.app.markup import notices_html, settings_html, status_html
from distill.app.media import ResultFiles, result_files, thumbnails
from distill.app.service import AppService

RUN_OUTPUTS: Final = {"status": 1, "buttons": 4, "preview": 1, "result": 8, "settings": 1}
"""Number of components of each part of `RunPart.outputs`, in their order."""
_SHOWN_SIDE: Final = 384  # pixels of the enlarged cut-out
_SAMPLE_S: Final = 1800.0  # longest wait for sampled views


@contextmanager
def shown_errors() -> Iterator[None]:
    """Show a UserError raised in the `with` block on the page.

    Raises:
        gradio.Error: a UserError was raised.
    """
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(str(error)), duration=None, print_exception=False) from error


class InputHandlers:
    """What happens when the user chooses an image."""

    def __init__(self, service: AppService) -> None:
        self._service = service

    def show(
        self, image: str | None, background: Background, threshold: float, *crops: float
    ) -> Iterator[tuple[Any, ...]]:
        """Show the cut-out, then the warning for unknown images, which takes longer."""
        if image is None:
            yield None, notices_html(), None
            return
        try:
            cut = _cut_out(self._service, image, background, threshold, crops)
            yield _enlarged(cut), notices_html(cut.notices), None
            yield gr.skip(), notices_html(cut.notices, warning=self._service.unknown_warning(cut)), gr.skip()
        except UserError as error:
            yield None, notices_html(error=str(error)), None

    def sample(
        self, image: str | None, background: Background, threshold: float, *crops: float
    ) -> Iterator[tuple[Any, ...]]:
        """Sample four views of the image and show them."""
        with shown_errors():
            cut = _cut_out(self._service, image, background, threshold, crops)
            state, path = self._service.sample(cut)
            if state is not None:
                yield gr.skip(), gr.Button("Sampling four views ...", interactive=False)
                state = self._service.wait_for_sample(cut, _SAMPLE_S)
        ready = gr.Button("Sample four views", interactive=True)
        if state is not None and state.status != "finished":
            gr.Warning(f"The views were not sampled: {state.message or state.status}", title="Error")
            yield gr.skip(), ready
            return
        with Image.open(path) as sheet:
            yield sheet.convert("RGB"), ready


class Actions:
    """What the buttons of runs do."""

    def __init__(self, service: AppService) -> None:
        self._service = service

    def start(self, image: str | None, background: Background, threshold: float, *rest: Any) -> str:
        """Start a run, and return its name."""
        *crops, quality, seed, faces, texture_size = rest
        with shown_errors():
            cut = _cut_out(self._service, image, background, threshold, tuple(crops))
            if seed is None:
                raise UserError("the seed is empty; give a number")
            return self._service.start(cut, quality, int(seed), faces=faces, texture_size=texture_size)

    def again(self, name: str | None) -> Any:
        """Start the run again with another seed, and return the name of the new run."""
        with shown_errors():
            return self._service.again(name) if name else gr.skip()

    def make_mesh_again(self, name: str | None, faces: int | None, texture_size: int | None) -> None:
        """Make the mesh of the finished run again with other settings. Empty numbers are the default."""
        with shown_errors():
            if name:
                self._service.make_mesh_again(name, faces=faces, texture_size=texture_size)

    def stop(self, name: str | None) -> None:
        """Stop the run."""
        if name:
            self._service.stop(name)

    def resume(self, name: str | None) -> None:
        """Resume the run."""
        with shown_errors():
            if name:
                self._service.resume(name)


class RunView:
    """Makes the updates of the components that show runs. Components whose content is the same are left alone."""

    def __init__(self, service: AppService, cache: Path) -> None:
        self._service, self._cache = service, cache

    def updates(self, name: str | None, shown: dict[str, Any] | None) -> tuple[Any, ...]:
        """Return what is shown now, and an update for each component of `RunPart.outputs`.

        Args:
            name: The selected run.
            shown: What the page shows, as returned by the last call.
        """
        state = self._service.state(name) if name else None
        preview = state.stored.previews[-1][1] if state and state.stored and state.stored.previews else None
        files, problem = self._files(state)
        stored = bool(state and state.stored and state.stored.config)
        finished = bool(state and state.status == "finished")
        buttons = (state.can_stop, state.can_resume and stored, stored, finished) if state else (False,) * 4
        now: dict[str, Any] = {
            "status": status_html(state, problem),
            "preview": [name, str(preview), files is None],
            "result": [name, files.model if files else ""],
            "buttons": list(buttons),
            "settings": [name, state.status if state else "", stored],
        }
        changed = {part for part, value in now.items() if (shown or {}).get(part) != value}
        updates: dict[str, Callable[[], list[Any]]] = {
            "status": lambda: [now["status"]],
            "buttons": lambda: [gr.Button(interactive=on) for on in buttons],
            "preview": lambda: [_preview_update(preview, hidden=files is not None)],
            "result": lambda: _result_updates(files),
            "settings": lambda: [self._settings(name)],
        }
        return (
            now if changed else gr.skip(),
            *(
                update
                for part, count in RUN_OUTPUTS.items()
                for update in (updates[part]() if part in changed else [gr.skip()] * count)
            ),
        )

    def gallery(self, before: list[str]) -> tuple[Any, Any]:
        """Return the names of the runs in the gallery with their status, and an update of the gallery."""
        states = self._service.states()
        listed = [f"{state.name}\n{state.status}" for state in states]
        return (gr.skip(), gr.skip()) if listed == before else (listed, thumbnails(states, self._cache))

    def _files(self, state: RunState | None) -> tuple[ResultFiles | None, str]:
        """Return the published results of a run, and why they cannot be shown."""
        try:
            return (result_files(state, self._cache) if state else None), ""
        except UserError as error:
            return None, str(error)

    def _settings(self, name: str | None) -> str:
        state = self._service.state(name) if name else None
        if name is None or state is None:
            return ""
        try:
            return settings_html(state.stored, self._service.command(name))
        except UserError as error:
            return settings_html(state.stored, (), str(error))


def select(event: gr.SelectData, names: list[str]) -> Any:
    return names[event.index].partition("\n")[0] if event.index < len(names) else gr.skip()


def _result_updates(files: ResultFiles | None) -> list[Any]:
    if files is None:
        # A 3D model in an invisible column would stay empty, and a viewer that is closed while it loads fails.
        return [gr.Column(visible="hidden"), gr.skip(), *[None] * 6]
    downloads = [
        gr.DownloadButton(value=each, visible=each is not None)
        for each in (files.model, files.obj, files.ply, files.usdz)
    ]
    return [gr.Column(visible=True), files.model, files.video, files.sheet, *downloads]


def _preview_update(preview: Path | None, *, hidden: bool) -> Any:
    if preview is None:
        return gr.Image(value=None, visible=not hidden)
    try:
        with Image.open(preview) as image:
            return gr.Image(value=image.convert("RGB"), visible=not hidden)
    except OSError:  # it is being replaced
        return gr.skip()


def _cut_out(
    service: AppService, image: str | None, background: Background, threshold: float, crops: tuple[float, ...]
) -> CutOut:
    """Return the cut-out that the components of the page describe. A threshold of 0 is automatic."""
    if image is None:
        raise UserError("there is no image; drop one, or choose an example")
    return service.cut_out(Path(image), Crop(*crops), background, threshold or None)


def _enlarged(cut: CutOut) -> Image.Image:
    pixels = (cut.prepared.rgb * 255).round().astype("uint8")
    scale = max(1, _SHOWN_SIDE // pixels.shape[0])
    return Image.fromarray(pixels).resize((pixels.shape[1] * scale, pixels.shape[0] * scale), Image.Resampling.NEAREST)
