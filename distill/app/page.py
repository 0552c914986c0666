"""The web page of the app, made of Gradio components."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import gradio as gr

from dataset.images.background import THRESHOLDS, Background
from dataset.io.paths import ROOT
from distill.app.handlers import Actions, InputHandlers, RunView, select
from distill.app.markup import notices_html, status_html
from distill.app.presets import describe
from distill.app.service import AppService
from distill.mesh.export import FACE_LIMIT, FEWEST_FACES
from distill.quality import QUALITIES
from train.model.multiview import BUNDLED_MODEL

TITLE: Final = "Isotropic3D"
TICK_S: Final = 1.0
GALLERY_TICK_S: Final = 5.0
EXAMPLES: Final = ("cat", "car", "house", "chair", "mug", "penguin", "robot", "teapot", "apple")
TEXTURE_CHOICES: Final = (256, 512, 1024, 2048, 4096)
_PARALLEL: Final = 8  # browsers that one event serves at once


def uploaded_image(**options: Any) -> Any:
    """Return a `gradio.Image` for input, whose value is the path of the uploaded file in the cache folder.

    Without this function, Gradio opens the file with Pillow first, without a bound on its size, and downloads URLs.
    The methods are replaced in the object, because Gradio writes a stub file beside the source of a subclass.

    Args:
        options: Options of `gradio.Image`.
    """
    image = gr.Image(type="filepath", image_mode=None, **options)
    move = image.async_move_resource_to_block_cache

    def path_of(payload: Any) -> str | None:
        return None if payload is None else payload.path

    async def move_file(url_or_file_path: Any) -> str | None:
        if "://" in str(url_or_file_path or ""):
            raise gr.Error("give an image file, not a URL", print_exception=False)
        moved: str | None = await move(url_or_file_path)
        return moved

    image.preprocess, image.async_move_resource_to_block_cache = path_of, move_file
    return image


@dataclass(frozen=True)
class InputPart:
    """The components with which the user chooses an image and starts a run."""

    image: Any
    background: Any
    threshold: Any
    crops: tuple[Any, ...]
    cut_out: Any
    notices: Any
    sample: Any
    views: Any
    quality: Any
    seed: Any
    faces: Any
    texture_size: Any
    start: Any

    @property
    def choice(self) -> list[Any]:
        """The components that determine the cut-out."""
        return [self.image, self.background, self.threshold, *self.crops]

    @property
    def mesh(self) -> list[Any]:
        """The components that determine the mesh."""
        return [self.faces, self.texture_size]


@dataclass(frozen=True)
class RunPart:
    """The components that show one run."""

    status: Any
    stop: Any
    resume: Any
    again: Any
    new_mesh: Any
    preview: Any
    result: Any
    model: Any
    video: Any
    sheet: Any
    downloads: tuple[Any, ...]
    settings: Any

    @property
    def outputs(self) -> list[Any]:
        """The components that `RunView.updates` changes, in its order."""
        buttons = [self.stop, self.resume, self.again, self.new_mesh]
        result = [self.preview, self.result, self.model, self.video, self.sheet, *self.downloads]
        return [self.status, *buttons, *result, self.settings]


def make_page(service: AppService, cache: Path) -> Any:
    """Return the page as `gradio.Blocks`.

    Args:
        service: What the page shows and controls.
        cache: The folder from which files are served.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=False) as page:
        gr.Markdown(f"# {TITLE}\nDrop an image of one object, and turn it into a textured 3D model.")
        selected, shown, names = gr.State(None), gr.State(None), gr.State([])
        inputs = _input_part(service)
        run = _run_part()
        gr.Markdown("## All runs\nChoose a run to show it.")
        gallery = gr.Gallery(
            show_label=False,
            columns=6,
            height="auto",
            allow_preview=False,
            buttons=[],
            object_fit="contain",
            elem_id="gallery",
        )
        view = RunView(service, cache)
        refresh = {"fn": view.updates, "inputs": [selected, shown], "outputs": [shown, *run.outputs]}
        relist = {"fn": view.gallery, "inputs": [names], "outputs": [names, gallery]}
        quiet = {"show_progress": "hidden", "concurrency_limit": _PARALLEL, "api_visibility": "private"}
        _connect_inputs(service, inputs, quiet)
        for event in (
            inputs.start.click(
                Actions(service).start,
                [*inputs.choice, inputs.quality, inputs.seed, *inputs.mesh],
                selected,
                **quiet,
            ),
            run.new_mesh.click(Actions(service).make_mesh_again, [selected, *inputs.mesh], None, **quiet),
            run.again.click(Actions(service).again, selected, selected, **quiet),
            run.stop.click(Actions(service).stop, selected, None, **quiet),
            run.resume.click(Actions(service).resume, selected, None, **quiet),
            page.load(service.current, None, selected, **quiet),
        ):
            event.then(**refresh, **quiet).then(**relist, **quiet)
        gallery.select(select, names, selected, **quiet).then(**refresh, **quiet)
        gr.Timer(TICK_S).tick(**refresh, **quiet)
        gr.Timer(GALLERY_TICK_S).tick(**relist, **quiet)
    return page


def _input_part(service: AppService) -> InputPart:
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            image = uploaded_image(
                label="Image (drop, paste or choose a file)",
                sources=["upload", "clipboard"],
                height=300,
                elem_id="image",
            )
            files = [ROOT / "examples" / f"{name}.png" for name in EXAMPLES]
            gr.Examples([[str(file)] for file in files if file.is_file()], image, label="Or one of these")
        with gr.Column(min_width=280):
            cut_out = gr.Image(
                label="What the model sees", interactive=False, height=300, buttons=[], elem_id="cut-out"
            )
            notices = gr.HTML(notices_html(), elem_id="notices")
            with gr.Accordion("Correct the cut-out", open=False):
                background = gr.Radio(
                    list(get_args(Background)),
                    value="auto",
                    label="Background",
                    info="auto removes an even background and keeps any other; uniform insists on an even one; keep "
                    "uses the whole image; rembg removes any background with an optional package.",
                )
                threshold = gr.Slider(
                    0,
                    THRESHOLDS[1],
                    0,
                    step=0.5,
                    label="Threshold of the background (0: automatic)",
                    info="For auto and uniform: a larger color difference removes more.",
                    elem_id="threshold",
                )
                with gr.Row():
                    crops = tuple(
                        gr.Slider(0, 90, 0, step=1, label=f"Cut off {side} (%)", min_width=160)
                        for side in ("left", "right", "top", "bottom")
                    )
        with gr.Column(min_width=280):
            measured = service.model == BUNDLED_MODEL and service.devices == ["cpu"] and service.steps_scale == 1.0
            quality = gr.Radio(
                [(describe(name, measured=measured), name) for name in QUALITIES],
                value="normal",
                label="Quality",
                elem_id="quality",
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
            with gr.Accordion("Advanced: the mesh", open=False):
                default = service.mesh_settings
                with gr.Row():
                    faces = gr.Number(
                        default.faces,
                        label=f"Faces at most ({FEWEST_FACES:,} to {FACE_LIMIT:,})",
                        precision=0,
                        min_width=120,
                        elem_id="faces",
                    )
                    texture_size = gr.Dropdown(
                        list(TEXTURE_CHOICES),
                        value=default.texture_size,
                        label="Texture size (pixels)",
                        min_width=120,
                        elem_id="texture-size",
                    )
                gr.Markdown("For new runs, and for *New mesh* of a finished run, which repeats no step.")
            start = gr.Button("Start", variant="primary", elem_id="start")
            sample = gr.Button("Sample four views", elem_id="sample")
            gr.HTML("The image and four views that the model samples:", elem_classes="caption")
            views = gr.Image(show_label=False, interactive=False, buttons=[], elem_id="views")
    return InputPart(
        image=image,
        background=background,
        threshold=threshold,
        crops=crops,
        cut_out=cut_out,
        notices=notices,
        sample=sample,
        views=views,
        quality=quality,
        seed=seed,
        faces=faces,
        texture_size=texture_size,
        start=start,
    )


def _run_part() -> RunPart:
    gr.Markdown("## Run")
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            status = gr.HTML(status_html(None), elem_id="status")
            with gr.Row():
                stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
                resume = gr.Button("Resume", interactive=False, elem_id="resume")
                again = gr.Button("Run again with another seed", interactive=False, elem_id="again")
                new_mesh = gr.Button("New mesh", interactive=False, elem_id="new-mesh")
            with gr.Accordion("Settings and command", open=False):
                settings = gr.HTML(elem_id="settings")
        with gr.Column(scale=3, min_width=300):
            preview = gr.Image(
                show_label=False,
                interactive=False,
                buttons=[],
                height=420,
                elem_id="preview",
                placeholder="Previews of the run appear here.",
            )
            with gr.Column(visible="hidden") as result:
                model = gr.Model3D(
                    label="Textured mesh (drag to turn)",
                    clear_color=(1.0, 1.0, 1.0, 1.0),
                    height=420,
                    interactive=False,
                    elem_id="model",
                )
                with gr.Row():
                    downloads = tuple(
                        gr.DownloadButton(f"Download {kind}", size="md", elem_id=f"download-{kind.lower()}")
                        for kind in ("GLB", "OBJ", "PLY", "USDZ")
                    )
                gr.HTML("One turn: colors, normals, and the shape without colors", elem_classes="caption")
                video = gr.Video(show_label=False, autoplay=True, loop=True, interactive=False, elem_id="video")
                sheet = gr.Image(show_label=False, interactive=False, buttons=["fullscreen"], elem_id="sheet")
    return RunPart(status, stop, resume, again, new_mesh, preview, result, model, video, sheet, downloads, settings)


def _connect_inputs(service: AppService, inputs: InputPart, quiet: dict[str, Any]) -> None:
    handlers = InputHandlers(service)
    show = {"fn": handlers.show, "inputs": inputs.choice, "outputs": [inputs.cut_out, inputs.notices, inputs.views]}
    inputs.image.change(**show, **quiet)
    inputs.background.change(**show, **quiet)
    for slider in (inputs.threshold, *inputs.crops):
        slider.release(**show, **quiet)
    inputs.sample.click(handlers.sample, inputs.choice, [inputs.views, inputs.sample], **quiet)
