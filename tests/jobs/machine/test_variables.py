"""The rule for each variable that libraries read: what reaches a rank, what is written down, that none is forgotten."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from jobs.machine import variables
from jobs.machine.variables import KEPT, NEUTRAL, PASSED, PLACE

DOC = Path(__file__).parents[3] / "docs" / "environment.md"

# How the names begin that the libraries in ranks and in the command give to what they read.
FAMILIES = (
    "TF|TF2|TENSORFLOW|AUTOGRAPH|KERAS|TORCH|TORCHINDUCTOR|TORCHDYNAMO|TORCHELASTIC|PYTORCH|INDUCTOR|AOT|AOTI|ATEN"
    "|KINETO|TRITON|CUTLASS|FBGEMM|XLA|JAX|PJRT|TPU|LIBTPU|MOSAIC|ORT|HOROVOD|GLOO|NCCL|UCX|UCC|FI|MASTER|GRPC|RAY"
    "|OMP|GOMP|KMP|MKL|MKLDNN|DNNL|ONEDNN|OPENBLAS|GOTO|BLIS|NPY|NUMPY|CUDA|CUDNN|CUBLAS|CUBLASLT|CUFFT|NVIDIA|HIP"
    "|ROCR|MIOPEN|MALLOC|TCMALLOC|LD|PMI|PMIX|OMPI|SLURM|SBATCH|SQUEUE|SRUN|POLARS|LOKY|JOBLIB|SKLEARN|SCIPY"
)
BINARIES = {
    "torch": "lib/*.so*",
    "tensorflow": "*.so*",
    "horovod": "*/*.so",
    "onnxruntime": "capi/*.so*",
    "numpy": "../numpy.libs/*.so*",
}
SOURCES = {
    "torch": ("_inductor", "_dynamo", "_functorch", "distributed", "backends", "cuda", "utils", "__init__.py"),
    "tensorflow": ("python", "__init__.py"),
    "horovod": ("common", "torch", "tensorflow"),
    "ray": ("_private", "_common", "util", "__init__.py"),
    "keras": ("src",),
    "jax": ("_src",),
    "matplotlib": ("__init__.py", "pyplot.py", "font_manager.py"),
    "polars": ("config.py",),
}
# One of each, read by that library for certain: where it is not found, the search finds nothing.
CERTAIN = {
    "torch": "TORCHDYNAMO_DISABLE", "tensorflow": "TF_XLA_FLAGS", "horovod": "HOROVOD_FUSION_THRESHOLD",
    "onnxruntime": "ORT_LOAD_CONFIG_FROM_MODEL", "numpy": "OPENBLAS_NUM_THREADS", "ray": "RAY_ADDRESS",
    "keras": "KERAS_BACKEND", "jax": "JAX_PLATFORM_NAME", "matplotlib": "MPLBACKEND", "polars": "POLARS_FMT_MAX_ROWS",
}  # fmt: skip


def names_in(*files: Path) -> set[str]:
    """What looks like a variable of FAMILIES in the files, and below the folders in Python's."""
    pattern = rf"\b(({FAMILIES})_|MPL|PYTHON)[A-Za-z0-9_]*[A-Z0-9]\b"
    command = ["grep", "-raohE", "--include=*.py", "--include=*.so*", pattern, *map(str, files)]
    found = subprocess.run(command, capture_output=True, text=True, errors="replace", env=os.environ | {"LC_ALL": "C"})
    return {name for name in found.stdout.split() if re.fullmatch(r"[A-Z0-9_]{5,}", name)}


def test_no_variable_of_an_installed_library_is_without_a_rule() -> None:
    found: dict[str, set[str]] = {}
    for library, files in [*BINARIES.items(), *SOURCES.items()]:
        spec = find_spec(library)
        if spec is None or spec.origin is None:
            continue
        folder = Path(spec.origin).parent
        where = [folder / name for name in files] if isinstance(files, tuple) else [*folder.glob(files)]
        found[library] = found.get(library, set()) | names_in(*[path for path in where if path.exists()])
    for library, names in found.items():
        print(f"{library} {metadata.version(library) if library != 'tensorflow' else ''}: {len(names)} names")
        assert CERTAIN[library] in names
    everything = set().union(*found.values())
    done = Counter(rule.what if (rule := variables.rule(name)) else "no rule" for name in everything)
    print(f"{len(everything)} in all: {dict(done)}")
    assert not sorted(name for name in everything if variables.rule(name) is None)


def test_the_documentation_has_the_table() -> None:
    """After a change that is meant: SCALING_WRITE_GOLDEN=1 make test PART=machine, and read the difference."""
    before, _, rest = DOC.read_text().partition("| variable |")
    _, _, after = rest.partition("\n\n")
    whole = f"{before}{variables.table()}\n\n{after}"
    if os.environ.get("SCALING_WRITE_GOLDEN"):
        DOC.write_text(whole)
    assert DOC.read_text() == whole


def test_no_variable_has_two_rules() -> None:
    names = Counter(name for rule in variables.RULES for name in rule.names.split())
    assert not [name for name, count in names.items() if count > 1]
    for rule in variables.RULES:  # a row that is in a family's, and says the same of it, is none
        for name in rule.names.split():
            wider = [r for p, r in variables._PREFIXES.items() if name.rstrip("*").startswith(p) and name != f"{p}*"]
            assert all(other.what != rule.what or other.why != rule.why for other in wider), name


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("GOMP_CPU_AFFINITY", NEUTRAL), ("KMP_BLOCKTIME", NEUTRAL), ("OMP_PLACES", NEUTRAL), ("KERAS_BACKEND", NEUTRAL),
        ("KERAS_NNX_ENABLED", NEUTRAL), ("TF_USE_LEGACY_KERAS", NEUTRAL), ("TF_XLA_FLAGS", NEUTRAL),
        ("TF_FORCE_GPU_ALLOW_GROWTH", NEUTRAL), ("TORCHDYNAMO_DISABLE", NEUTRAL), ("TORCH_COMPILE_DISABLE", NEUTRAL),
        ("NVIDIA_TF32_OVERRIDE", NEUTRAL), ("JAX_PLATFORMS", NEUTRAL), ("JAX_ENABLE_X64", NEUTRAL),
        ("JAX_DEFAULT_MATMUL_PRECISION", NEUTRAL), ("JAX_COMPILATION_CACHE_DIR", NEUTRAL), ("https_proxy", NEUTRAL),
        ("ALL_PROXY", NEUTRAL), ("no_grpc_proxy", NEUTRAL), ("PYTHONWARNINGS", NEUTRAL), ("PYTHONOPTIMIZE", NEUTRAL),
        ("MPLBACKEND", NEUTRAL), ("MATPLOTLIBRC", NEUTRAL), ("RAY_ADDRESS", NEUTRAL), ("SQUEUE_FORMAT", NEUTRAL),
        ("SBATCH_EXPORT", NEUTRAL), ("SLURM_TIME_FORMAT", NEUTRAL), ("HOROVOD_AUTOTUNE", NEUTRAL),
        ("RANK", PLACE), ("MASTER_PORT", PLACE), ("OMPI_COMM_WORLD_RANK", PLACE), ("PMI_RANK", PLACE),
        ("TF_CONFIG", PLACE), ("TORCHELASTIC_RUN_ID", PLACE), ("GIT_DIR", NEUTRAL),
        ("NCCL_ALGO", KEPT), ("TF_ENABLE_ONEDNN_OPTS", KEPT), ("TF_DETERMINISTIC_OPS", KEPT), ("MKL_CBWR", KEPT),
        ("TORCH_DISTRIBUTED_DEBUG", KEPT), ("TORCH_LOGS", KEPT), ("TORCHINDUCTOR_MAX_AUTOTUNE", KEPT),
        ("PYTORCH_CUDA_ALLOC_CONF", KEPT), ("CUDA_LAUNCH_BLOCKING", KEPT), ("LD_PRELOAD", KEPT), ("MALLOC_CONF", KEPT),
        ("PYTHONHASHSEED", KEPT), ("PYTHONPATH", KEPT), ("TMPDIR", KEPT), ("HOROVOD_FUSION_THRESHOLD", KEPT),
        ("OPENBLAS_CORETYPE", KEPT), ("ONEDNN_MAX_CPU_ISA", KEPT), ("ATEN_CPU_CAPABILITY", KEPT), ("CXX", KEPT),
        ("GRPC_VERBOSITY", KEPT), ("XLA_FLAGS", KEPT), ("XLA_PYTHON_CLIENT_MEM_FRACTION", KEPT),
        ("AMD_LOG_LEVEL", KEPT), ("FX_GRAPH_SHOW_META", KEPT), ("LD_BIND_NOW", KEPT),
        ("TF_LOG_XLA_ACTIVITY", KEPT), ("TF_USE_CUBLASLT", KEPT), ("TF_CPP_MIN_LOG_LEVEL", KEPT),
        ("TF_ENCRYPTION", PASSED), ("TF_BACKEND_CONFIG", PASSED), ("TF_USERNAME", PASSED), ("LD_SDK_ID", PASSED),
        ("TF_REATTACH_PROVIDERS", PASSED), ("TF_CLI_ARGS_plan", PASSED), ("FX_ACCOUNT", None), ("AMD_USER", None),
        ("TF_VAR_db_pwd", PASSED), ("TF_LOG_PATH", PASSED), ("SLURM_JOB_ID", PASSED), ("SLURM_CONF", PASSED),
        ("SBATCH_ACCOUNT", PASSED), ("LC_ALL", PASSED), ("COLUMNS", PASSED),
        ("HOME", None), ("DATABASE_URL", None), ("AWS_SECRET_ACCESS_KEY", None), ("RANKING", None), ("TFX_A", None),
    ],
)  # fmt: skip
def test_what_is_done_with_a_variable(name: str, what: str | None) -> None:
    rule = variables.rule(name)
    assert (rule and rule.what) == what
    reaches = name in variables.for_ranks({name: "x"})
    assert reaches == (what not in (NEUTRAL, PLACE))
    secret = variables.SECRET.search(name) is not None
    assert (variables.recorded({name: "x"}) == {name: "x"}) == (what in (KEPT, NEUTRAL) and not secret)


def test_ranks_read_no_file_of_keras_and_no_devices_or_threads_in_flags() -> None:
    assert variables.for_ranks({"KERAS_HOME": "/home/me/.keras"}) == variables.OURS
    assert variables.for_ranks({"PYTHONIOENCODING": "latin-1"}) == variables.OURS
    flags = "--xla_force_host_platform_device_count=8  --xla_dump_to=/x --xla_cpu_multi_thread_eigen=false"
    assert variables.for_ranks({"XLA_FLAGS": flags})["XLA_FLAGS"] == "--xla_dump_to=/x"
    assert "XLA_FLAGS" not in variables.for_ranks({"XLA_FLAGS": "--xla_cpu_multi_thread_eigen"})


def test_flags_in_a_file_are_refused_by_the_variables_name() -> None:
    (fault,) = variables.refused({"XLA_FLAGS": "/home/me/flags.txt"})
    assert fault.startswith("XLA_FLAGS: ")
    for fine in ({}, {"XLA_FLAGS": ""}, {"XLA_FLAGS": " --xla_dump_to=/x"}):
        assert variables.refused(fine) == []


@pytest.mark.parametrize(
    "name",
    ["TF_API_TOKEN", "HOROVOD_SECRET_KEY", "NCCL_DB_PWD", "TF_DSN", "TORCH_AUTH", "CUDA_PASSWORD", "LD_COOKIE"],
)
def test_a_name_that_may_be_a_secrets_is_not_written(name: str) -> None:
    assert variables.recorded({name: "hunter2", "NCCL_DEBUG": "INFO"}) == {"NCCL_DEBUG": "INFO"}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("http://me:hunter2@proxy:3128/x", "http://***@proxy:3128/x"),
        ("https://ghp_hunter2@host", "https://***@host"),
        ("http://me:hun@ter2@host", "http://***@host"),
        ("http://me:hun/ter2@host", "http://***@host"),
        ("a=redis://:hunter2@db,b=grpc://host:8470", "a=redis://***@db,b=grpc://host:8470"),
        ("me:hunter2@proxy:3128", "***@proxy:3128"),
        ("https://host/x?a=1&token=hunter2&b=2", "https://host/x?a=1&token=***&b=2"),
        ("https://host/x?X-Amz-Signature=hunter2", "https://host/x?X-Amz-Signature=***"),
        ("https://host/x?sv=1&sig=hunter2", "https://host/x?sv=1&sig=***"),
        ("--api_key=hunter2 --level=3", "--api_key=*** --level=3"),
        ("aws_secret_access_key=hunter2", "aws_secret_access_key=***"),
        ('{"password": "hunter2", "user": "me"}', '{"password": "***", "user": "me"}'),
        ("Authorization: Bearer hunter2", "Authorization: ***"),
        ('key_provider "x" { passphrase = "correct horse battery" }', 'key_provider "x" { passphrase = "***" }'),
        ('{"text": "password = \\"correct horse\\", b"}', '{"text": "password = \\"***\\", b"}'),
        ('{"password": "a\\"hunter2", "b": 1}', '{"password": "***", "b": 1}'),
        ("pwd='correct horse' b", "pwd='***' b"),
        ("AccountName=x;AccountKey=Zm9vYmFy==;Suffix=y", "AccountName=x;AccountKey=***;Suffix=y"),
        ("apikey=hunter2 --pass=hunter2 db_pass: hunter2", "apikey=*** --pass=*** db_pass: ***"),
        ("--api-key hunter2 --password 'hunter2' --level 3", "--api-key *** --password '***' --level 3"),
        ("allow_bypass=1 --mode key", "allow_bypass=1 --mode key"),
        ("id AKIAIOSFODNN7EXAMPLE", "id ***"),
        ("^docker0,lo", "^docker0,lo"),
        ("expandable_segments:True,max_split_size_mb:128", "expandable_segments:True,max_split_size_mb:128"),
        ("--xla_disable_hlo_passes=fusion", "--xla_disable_hlo_passes=fusion"),
        ("/opt/a/lib:/opt/python@3.11/lib", "/opt/a/lib:/opt/python@3.11/lib"),
        ("10.0.0.1:8470,10.0.0.2:8470", "10.0.0.1:8470,10.0.0.2:8470"),
    ],
)
def test_credentials_in_a_value_are_masked(value: str, kept: str) -> None:
    assert variables.recorded({"NCCL_X": value}) == {"NCCL_X": kept}
