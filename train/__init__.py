from dataset.compile_cache import keep_compiled_code
from dataset.openmp import let_threads_sleep

let_threads_sleep()  # both before any module of the package imports torch
keep_compiled_code()
