"""Set-up shared by the tests: no network, no traces in caches, a small real processor."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

# before anything imports a Hugging Face library: they read these once
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="image2cad-tests-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], True)
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:  # one core for each; threads that wait for theirs spin
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
GENCAD_DEV = ROOT.parent / "shared" / "data" / "gencad_dev"

# Files that take longest. `make check` leaves them out; `make test` begins with them, so that two
# processes end at about the same time. A single test elsewhere may be marked slow as well.
SLOW_FILES = (
    "test_notebooks", "test_api_abuse", "test_metrics_attacks", "test_app", "test_reward_training",
    "test_planning", "test_bases", "test_door", "test_docs", "test_resume", "test_operating",
    "test_recipes", "test_wheel", "test_command_line", "test_container", "test_stored_jobs",
    "test_api", "test_orders", "test_contract", "test_proxy",
)  # fmt: skip

# Files that ask one server. It takes long to start, so one process runs them.
TOGETHER = {
    "test_api_abuse": "api", "test_api": "api", "test_orders": "api", "test_contract": "api",
    "test_operating": "operating", "test_proxy": "operating",
}  # fmt: skip

# Of the others those that take long come first, so that the last file to run is a short one.
LONG_FILES = (
    "test_pretraining", "test_reading", "test_verification", "test_viewpoints", "test_backend",
    "test_store", "test_service", "test_training", "test_styles", "test_levers",
)  # fmt: skip

TEXT = 'import cadquery as cq\nresult = cq.Workplane("XY").box(1, 2, 3)\nUSER: ASSISTANT:'


@pytest.hookimpl(optionalhook=True)  # there is none without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For --dist loadfile: a process is given a file, or all files that belong together."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return TOGETHER.get(Path(file).stem, file)

    return Together(config, log)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate((*SLOW_FILES, *LONG_FILES))}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    for item in items:
        if item.path.stem in SLOW_FILES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def gencad_dev() -> Path:
    """The folder of real rows that lies beside a developer's checkout."""
    if not GENCAD_DEV.is_dir():
        pytest.skip("no real rows here: ../shared/data/gencad_dev is missing")
    return GENCAD_DEV


@pytest.fixture(scope="session")
def processor():
    """A small, real LlavaProcessor: byte-level BPE, 28 px, patch 14, so 4 image tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )
    size = {"height": 28, "width": 28}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=size),
        tokenizer=fast,
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    )


@pytest.fixture(scope="session")
def samples():
    """Twelve bundled samples."""
    from image2cad.data.samples import load_samples

    # Our own files: whether their programs run is not what is tested with them.
    return load_samples("bundled", "train", 12, check_code=False, progress=False)[0]


@pytest.fixture(scope="session")
def base(tmp_path_factory, samples):
    """A folder with a real LLaVA of a few thousand parameters and random weights."""
    from transformers import set_seed

    from image2cad.vlm.nano import NanoShape, build_nano, train_tokenizer

    tiny = NanoShape(
        image=56, patch=14, vision_width=32, vision_layers=1, vision_heads=2,
        # 4-bit inference on a CPU needs widths that are multiples of 64
        text_width=192, text_layers=1, text_heads=2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "tiny"
    set_seed(0)
    model, processor = build_nano(train_tokenizer([s.cadquery for s in samples], 400), tiny)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
