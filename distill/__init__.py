from dataset.openmp import let_threads_sleep

let_threads_sleep()  # before any module of the package imports torch
