"""What is done with the variables of a shell that libraries read: one rule for every launcher and for the command.

    python -m jobs.machine.variables      the table, as docs/environment.md has it

What would bend what a study says (threads, cores, a rank's place, backend, types, how it is executed) does not reach
a rank. What changes speed and is somebody's choice does, and is recorded. Of two rules for a name the longer one holds.
Loaded by every keeper: the standard library alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

KEPT = "kept and recorded"
PASSED = "kept, not recorded"
NEUTRAL = "neutralized"  # what a rank has of that name is this project's own, and recorded
PLACE = "neutralized, set anew"  # for each rank, and not recorded: ports and numbers say nothing later


class Rule(NamedTuple):
    """`names` are apart by spaces; one with a star at its end is a prefix."""

    names: str
    what: str
    why: str


RULES = (
    # A rank's place among the others
    Rule("RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE NODE_RANK MASTER_* GROUP_RANK GROUP_WORLD_SIZE ROLE_* "
         "TORCHELASTIC_* TORCHCOMM_* TF_CONFIG HOROVOD_GLOO_RENDEZVOUS_*", PLACE, "a rank's place among the others"),
    Rule("JAX_COORDINATOR_* JAX_NUM_PROCESSES JAX_PROCESS_* JAX_LOCAL_DEVICE_IDS JAX_SLICE_INDEX", PLACE,
         "the same for JAX, whose ranks here are one process"),
    Rule("PMI_* PMIX_* OMPI_* PRTE_* I_MPI_* MPICH_* MV2_* MVP_* HYDRA_* HYDI_* PALS_*", PLACE,
         "MPI's view of the ranks, which do not use MPI here"),
    # Threads and cores
    Rule("OMP_* GOMP_* KMP_* LIBOMP_* OMPTARGET_* LIBOMPTARGET_*", NEUTRAL,
         "threads and where they run: resources.threads_per_worker, and each rank on cores of its own"),
    Rule("MKL_NUM_THREADS MKL_DOMAIN_NUM_THREADS MKL_DYNAMIC MKL_NUM_STRIPES MKL_MPI_PPN OPENBLAS_NUM_THREADS "
         "OPENBLAS_DEFAULT_NUM_THREADS OPENBLAS_MAIN_FREE GOTO_NUM_THREADS GOTOBLAS_MAIN_FREE BLIS_NUM_THREADS "
         "BLIS_JC_NT BLIS_PC_NT BLIS_IC_NT BLIS_JR_NT BLIS_IR_NT BLIS_THREAD_IMPL VECLIB_MAXIMUM_THREADS "
         "NUMEXPR_NUM_THREADS NUMEXPR_MAX_THREADS", NEUTRAL, "the same for matrix libraries"),
    Rule("TF_NUM_INTEROP_THREADS TF_NUM_INTRAOP_THREADS TF_OVERRIDE_GLOBAL_THREADPOOL NPROC PJRT_NPROC", NEUTRAL,
         "the same for TensorFlow and XLA"),
    Rule("HOROVOD_THREAD_AFFINITY", NEUTRAL, "the same for Horovod's thread"),
    # Devices and backend
    Rule("KERAS_*", NEUTRAL, "backend, image format and types of Keras; ranks have KERAS_HOME=/dev/null, so that no "
         "keras.json is read or written"),
    Rule("TF_USE_LEGACY_KERAS TF2_BEHAVIOR", NEUTRAL, "the model is Keras 3's and TensorFlow 2's"),
    Rule("JAX_PLATFORMS JAX_PLATFORM_NAME JAX_NUM_CPU_DEVICES JAX_DEFAULT_DEVICE JAX_BACKEND_TARGET "
         "JAX_MOCK_GPU_TOPOLOGY JAX_MOCK_NUM_GPU_PROCESSES PJRT_DEVICE CPU_NUM_DEVICES GPU_NUM_DEVICES XRT_*", NEUTRAL,
         "on what is computed: resources.gpus_per_worker and resources.tpu"),
    Rule("TF_ENABLED_DEVICE_TYPES TF_FORCE_GPU_ALLOW_GROWTH XLA_PYTHON_CLIENT_PREALLOCATE", NEUTRAL,
         "each worker has the devices that are its own, whose memory grows as it is needed, or NCCL finds none"),
    # Types and precision
    Rule("JAX_ENABLE_X64 JAX_EXPLICIT_X64_DTYPES JAX_DEFAULT_DTYPE_BITS JAX_DEFAULT_MATMUL_PRECISION "
         "JAX_ALLOW_F16_REDUCTIONS JAX_NUMPY_DTYPE_PROMOTION JAX_NUMPY_RANK_PROMOTION XLA_USE_BF16 XLA_USE_F16 "
         "XLA_USE_FP16 XLA_DOWNCAST_BF16 XLA_DOWNCAST_FP16 XLA_USE_32BIT_LONG TF_ENABLE_AUTO_MIXED_PRECISION* "
         "TF_AUTO_MIXED_PRECISION_* TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32 TF_ENABLE_CUDNN_TENSOR_OP_MATH_FP32 "
         "TF_ENABLE_CUDNN_RNN_TENSOR_OP_MATH_FP32 TF_DISABLE_CUBLAS_TENSOR_OP_MATH TF_DISABLE_CUDNN_TENSOR_OP_MATH "
         "TF_CONV2D_USE_FP16_ACCUMULATE TF_FP16_CONV_USE_FP32_COMPUTE TF_FP16_MATMUL_USE_FP32_COMPUTE "
         "TF_SET_ONEDNN_FPMATH_MODE ONEDNN_DEFAULT_FPMATH_MODE DNNL_DEFAULT_FPMATH_MODE NVIDIA_TF32_OVERRIDE "
         "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
         NEUTRAL, "types: `precision` of the study says them"),
    # How it is executed
    Rule("TORCH_COMPILE_DISABLE TORCHDYNAMO_DISABLE TORCHDYNAMO_SUPPRESS_ERRORS TORCH_COMPILE_BACKEND "
         "TORCH_COMPILE_OVERRIDE_BACKENDS PYTORCH_JIT PYTORCH_JIT_DISABLE TF_XLA_FLAGS TF_FUNCTION_JIT_COMPILE_DEFAULT "
         "TF_JIT_COMPILE_REWRITE JAX_DISABLE_JIT JAX_NO_TRACING JAX_NO_EXECUTION", NEUTRAL,
         "`execution` of the study says what is compiled, and by what"),
    Rule("JAX_COMPILATION_CACHE_* JAX_ENABLE_COMPILATION_CACHE JAX_PERSISTENT_CACHE_*", NEUTRAL,
         "each launch compiles anew, or its time to compile is another's"),
    Rule("XLA_FLAGS", KEPT, "less --xla_force_host_platform_device_count and --xla_cpu_multi_thread_eigen, which say "
         "devices and threads; refused where it names a file of flags"),
    # Python
    Rule("PYTHON*", KEPT, "Python's own; a folder of PYTHONPATH with a package called as one of ours stands behind "
         "ours"),
    Rule("PYTHONWARNINGS PYTHONOPTIMIZE PYTHONINSPECT PYTHONDEVMODE PYTHONTRACEMALLOC PYTHONPROFILEIMPORTTIME "
         "PYTHONVERBOSE PYTHONDEBUG PYTHONDUMPREFS PYTHONMALLOCSTATS PYTHONASYNCIODEBUG PYTHONSTARTUP "
         "PYTHONBREAKPOINT PYTHONCASEOK PYTHON_PRESITE", NEUTRAL,
         "for work on a program: they slow Python, or end it over a warning"),
    Rule("PYTHONIOENCODING", NEUTRAL, "logs are in UTF-8"),
    # Process, memory, compiler
    Rule("LD_ASSUME_KERNEL LD_AUDIT LD_BIND_* LD_DEBUG* LD_DYNAMIC_WEAK LD_HWCAP_MASK LD_LIBRARY_PATH LD_ORIGIN_PATH "
         "LD_PREFER_MAP_* LD_PRELOAD LD_PROFILE* LD_SHOW_AUXV LD_USE_* LD_VERBOSE LD_WARN GLIBC_TUNABLES "
         "MALLOC_* TCMALLOC_* JEMALLOC_* MIMALLOC_*", KEPT,
         "which libraries are loaded, and how memory is had"),
    Rule("LD_*", PASSED, "others' that begin so"),
    Rule("TMPDIR TEMP TMP TEMP_DIR", KEPT, "where generated code is compiled; each rank has a folder of its own there"),
    Rule("CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH LIBRARY_PATH MAX_JOBS", KEPT,
         "with what torch.compile builds"),
    Rule("LANG LANGUAGE LC_* TZ", PASSED, "neither speed nor numbers"),
    Rule("GIT_*", NEUTRAL, "the commit that is recorded is this project's"),
    # Frameworks and their libraries
    Rule("TORCH_* TORCHINDUCTOR_* TORCHDYNAMO_* TORCHEXPORT_* PYTORCH_* INDUCTOR_* AOT_* AOTI_* AOTINDUCTOR_* ATEN_* "
         "PT2_* TRITON_* KINETO_* CUTLASS_* CUTEDSL_* FX_GRAPH_* FX_NET_* FX_PATCH_* "
         "C10_* CAFFE2_* FBGEMM_* DCP_DISABLE_* DCP_USE_* LTC_* PT_XLA_* "
         "USE_LIBUV TEARDOWN_CUPTI", KEPT, "PyTorch's"),
    Rule("TF_ANNOTATE_* TF_AUTO_* TF_AUTOTUNE_* TF_BFC_* TF_CLUSTER_COORDINATOR_* TF_COORDINATOR_* TF_COST_* TF_CPP_* "
         "TF_CPU_* TF_CUDA_* TF_CUDNN_* TF_DATA_EXPERIMENT_* TF_DEBUG_* TF_DETERMINISTIC_* TF_DISABLE_* TF_DUMP_* "
         "TF_EAGER_* TF_ENABLE_* TF_FORCE_* TF_FORWARD_* TF_FUNCTION_* TF_GPU_* TF_GRAPH_* TF_GRPC_* TF_JITRT_* "
         "TF_LOG_XLA_* TF_MATMUL_* TF_MKL_* TF_MLIR_* TF_NODE_FILE_* TF_NP_* TF_NUM_* TF_ONEDNN_* TF_OPTIONALS_* "
         "TF_PER_DEVICE_* TF_PFLR_* TF_PLUGGABLE_* TF_PROFILER_* TF_PS_* TF_PSS_* TF_QUANT_* TF_REMOTE_HANDLE_* "
         "TF_RUN_HANDLER_* TF_SEND_AS_* TF_SQLITE_* TF_SYNC_* TF_TABLE_* TF_TRT_* TF_USE_* TF_WORKER_NUM_* TF_XLA_* "
         "TF2_* TENSORFLOW_* TFLITE_* AUTOGRAPH_* EIGEN_*", KEPT, "TensorFlow's"),
    Rule("TF_*", PASSED, "not TensorFlow's but Terraform's and others', with secrets among them"),
    Rule("XLA_* JAX_* JAXLIB_* PJRT_* TPU_* LIBTPU_* MOSAIC_*", KEPT, "XLA's and JAX's"),
    Rule("ORT_* ONNXRUNTIME_*", KEPT, "ONNX Runtime's"),
    Rule("MKL_* MKLDNN_* DNNL_* ONEDNN_* OPENBLAS_* GOTO_* GOTOBLAS_* BLIS_* VECLIB_* NUMEXPR_* NPY_* NUMPY_*", KEPT,
         "which code matrix libraries take"),
    Rule("CUDA_* CUDNN_* CUBLAS_* CUBLASLT_* CUFFT_* CUSOLVER_* CUSPARSE_* NVIDIA_* NVSHMEM_*", KEPT,
         "NVIDIA's; of CUDA_VISIBLE_DEVICES each rank gets its own share"),
    Rule("HIP_* ROCR_* HSA_* ROCM_* ROCBLAS_* MIOPEN_* RCCL_* AMD_COMGR_* AMD_CPU_AFFINITY AMD_DIRECT_DISPATCH "
         "AMD_LOG_* AMD_OPT_* AMD_SERIALIZE_* ZE_* SYCL_* ONEAPI_* CCL_*", KEPT,
         "of other makers' devices"),
    # Communication
    Rule("NCCL_* UCX_* UCC_* FI_* IBV_* MLX4_* MLX5_* RDMAV_* PSM2_* PSM3_*", KEPT, "NCCL's and the fabric's"),
    Rule("GLOO_*", NEUTRAL, "ranks meet at the address that the launcher has found"),
    Rule("HOROVOD_*", NEUTRAL, "its place, controller and operations are set anew; it tries and traces nothing while "
         "steps are timed"),
    Rule("HOROVOD_FUSION_THRESHOLD HOROVOD_CYCLE_TIME HOROVOD_CACHE_CAPACITY HOROVOD_HIERARCHICAL_* "
         "HOROVOD_BATCH_D2D_MEMCOPIES HOROVOD_NUM_NCCL_STREAMS HOROVOD_LOG_*", KEPT, "how Horovod is tuned"),
    Rule("GRPC_*", KEPT, "gRPC's, which tf-multiworker uses"),
    Rule("http_proxy https_proxy ftp_proxy all_proxy grpc_proxy no_proxy no_grpc_proxy HTTP_PROXY HTTPS_PROXY "
         "FTP_PROXY ALL_PROXY GRPC_PROXY NO_PROXY GRPC_PROXY_EXP GRPC_ADDRESS_HTTP_PROXY*", NEUTRAL,
         "ranks talk to each other alone; gRPC would ask the proxy for them, and wait. MNIST without a path is "
         "fetched by the command alone, and ranks with another home folder need `data.path`"),
    Rule("RES_OPTIONS LOCALDOMAIN HOSTALIASES", KEPT, "how names of hosts are found"),
    # Launchers
    Rule("RAY_*", NEUTRAL, "for Ray itself and its workers; ranks do not get them"),
    Rule("RAY_ADDRESS", NEUTRAL, "which cluster the Ray launcher takes where launcher.address says none; refused if it "
         "is no host:port"),
    Rule("RAY_RUNTIME_ENV_HOOK RAY_ENABLE_UV_RUN_RUNTIME_ENV", NEUTRAL, "workers run in the interpreter of the "
         "command, not in one that Ray makes of `uv run`"),
    Rule("SLURM_* SLURMD_* SLURMCTLD_*", PASSED, "SLURM's; nodes and job stand in the outcome"),
    Rule("SBATCH_ACCOUNT SBATCH_PARTITION SBATCH_QOS", PASSED, "a user's own defaults, where a study names none"),
    Rule("SBATCH_* SRUN_* SALLOC_* SQUEUE_* SACCT_* SCANCEL_* SINFO_* SCONTROL_* SPRIO_* SSTAT_*", NEUTRAL,
         "they change what SLURM's commands take and print"),
    Rule("SLURM_CLUSTERS SLURM_TIME_FORMAT SLURM_BITSTR_LEN SLURM_HINT SLURM_EXIT_* SLURM_HOSTFILE SLURM_MULTI_PROG "
         "SLURM_TASK_PROLOG SLURM_TASK_EPILOG SLURM_PROLOG SLURM_EPILOG SLURM_STDINMODE SLURM_STDOUTMODE "
         "SLURM_STDERRMODE SLURM_LABELIO SLURM_UNBUFFEREDIO SLURM_OPEN_MODE SLURM_OVERCOMMIT SLURM_OVERLAP SLURM_EXACT "
         "SLURM_WHOLE SLURM_CORE_SPEC SLURM_THREAD_SPEC SLURM_THREADS SLURM_THREADS_PER_CORE SLURM_MEM_BIND* "
         "SLURM_WORKING_DIR SLURM_WAIT SLURM_TIMELIMIT SLURM_IMMEDIATE SLURM_SPREAD_JOB SLURM_USE_MIN_NODES "
         "SLURM_REQ_SWITCH SLURM_NTASKS_PER_*", NEUTRAL, "the same for sbatch and the steps that srun starts"),
    Rule("SLURM_CPU_FREQ_REQ", KEPT, "the frequency of the cores"),
    # The command itself
    Rule("MPL* MATPLOTLIBRC", NEUTRAL, "figures are files, and look alike everywhere"),
    Rule("MPLCONFIGDIR MPL_IGNORE_SYSTEM_FONTS", PASSED, "where Matplotlib keeps its list of fonts"),
    Rule("COLUMNS LINES TERM COLORTERM NO_COLOR FORCE_COLOR TTY_* TERMINAL_WIDTH JUPYTER_* TYPER_* _TYPER_*", PASSED,
         "how the terminal is written to"),
    Rule("POLARS_* _RJEM_* PANDAS_* ARROW_* SCIPY_* SKLEARN_* JOBLIB_* LOKY_* SEABORN_* PYDANTIC_* PSUTIL_*", PASSED,
         "of libraries of the analysis; ranks do not load them, or for nothing that is timed"),
    Rule("XDG_CACHE_HOME", PASSED, "where images are kept that are decoded once (docs/data.md)"),
    Rule("SCALING_*", PASSED, "this project's own"),
)  # fmt: skip

# What ranks have instead.
OURS = {"KERAS_HOME": os.devnull, "PYTHONIOENCODING": "utf-8"}
BEFORE = "SCALING_BEFORE"  # as JSON, what the shell had for those that a keeper has set for its rank alone
DEVICES_AND_THREADS = r"--xla_(?:force_host_platform_device_count|cpu_multi_thread_eigen)(?:=\S*)?(?!\S)"

# A name that may be a secret's is not recorded, whatever its rule.
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASS|PWD|CREDENTIAL|DSN|PRIVATE|AUTH|COOKIE|JWT", re.I)
# In the value of another: who somebody is in front of a host, words after a name that tells, and tokens by their look.
TELLS = r"(?:token|secret|passw(?:or)?d|passphrase|(?<!by)pass|pwd|credentials?|key|auth|sig|signature|authorization)"
GIVEN = rf"(?i)({TELLS}(?:\\?['\"])?\s*[=:]\s*"
MASKS = (
    (r"(?<=://)\S*@", "***@"),
    (r"[^\s,;='\"/@]*:(?!/)[^\s@]\S*@", "***@"),  # a slash: of two folders in a list one may have an @ in its name
    (GIVEN + r"\\\")(?:(?!\\\").)+", r"\1***"),
    (GIVEN + r"\")(?:\\.|[^\"\\])+", r"\1***"),
    (GIVEN + r"')(?:\\.|[^'\\])+", r"\1***"),
    (GIVEN + r")(?!\\?['\"])(?:(?:bearer|basic)\s+)?[^\s,;&'\"]+", r"\1***"),
    (rf"(?i)((?:^|\s)--?[\w-]*{TELLS}\s+['\"]?)(?!-)[^\s'\"]+", r"\1***"),
    (r"(?i)\b((?:bearer|basic)\s+)\S+", r"\1***"),
    (r"\b(?:AKIA|ASIA|AIza|ghp_|gho_|ghs_|ghu_|github_pat_|glpat-|hf_|sk-|xox[abprs]-|eyJ)[\w./+=-]{12,}", "***"),
)

_EXACT = {name: rule for rule in RULES for name in rule.names.split() if not name.endswith("*")}
_PREFIXES = {name[:-1]: rule for rule in RULES for name in rule.names.split() if name.endswith("*")}
_BY_LENGTH = sorted(_PREFIXES, key=len, reverse=True)


def rule(name: str) -> Rule | None:
    """The rule for a variable; None for one that no library here is known to read, which is kept and not recorded."""
    if name in _EXACT:
        return _EXACT[name]
    return next((_PREFIXES[prefix] for prefix in _BY_LENGTH if name.startswith(prefix)), None)


def neutral(name: str) -> bool:
    """Whether a rank does not get what the shell has set."""
    found = rule(name)
    return found is not None and found.what in (NEUTRAL, PLACE)


def for_ranks(variables: Mapping[str, str]) -> dict[str, str]:
    """What of a shell's variables reaches a rank, with what it has instead of the rest."""
    kept = {name: value for name, value in variables.items() if not neutral(name)}
    flags = " ".join(re.sub(DEVICES_AND_THREADS, "", kept.pop("XLA_FLAGS", "")).split())
    return kept | OURS | ({"XLA_FLAGS": flags} if flags else {})


def recorded(variables: Mapping[str, str]) -> dict[str, str]:
    """What of a rank's variables its report names, as the shell had them. No secret by its name or, as far as it
    shows, by its value."""
    before = json.loads(variables.get(BEFORE, "{}"))
    variables = {n: v for n, v in (dict(variables) | before).items() if v is not None}
    told = [n for n in sorted(variables.keys() - OURS) if (r := rule(n)) is not None and r.what in (KEPT, NEUTRAL)]
    return {name: masked(variables[name]) for name in told if not SECRET.search(name)}


def masked(text: str) -> str:
    """The text without what looks like credentials."""
    for pattern, instead in MASKS:
        text = re.sub(pattern, instead, text)
    return text


def refused(variables: Mapping[str, str]) -> list[str]:
    """A line for each variable with which nothing is measured."""
    if variables.get("XLA_FLAGS", "").strip()[:1] not in ("", "-"):
        return ["XLA_FLAGS: names a file, and what is in it would not be recorded; write its flags into the variable"]
    return []


def table() -> str:
    """The rules as lines of Markdown."""
    rows = [f"| {' '.join(f'`{name}`' for name in r.names.split())} | {r.what} | {r.why} |" for r in RULES]
    return "\n".join(["| variable | what is done | why |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())
