"""The training benchmark classifies GPU kernels by their names."""

import pytest

from benchmarks.train.train_bench import kind_of_kernel


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x64", "attention"),
        ("sm90_xmma_wgrad_indexed_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "convolutions"),
        ("nvjet_sm90_tst_160x128_64x5_1x2_h_bz_NNN", "matrix products"),
        ("triton_poi_fused__scaled_dot_product_attention_transpose_13", "normalization, activations, sums (Inductor)"),
        ("void cudnn::engines_precompiled::nchwToNhwcKernel<__nv_bfloat16>", "layout changes"),
        ("void at::native::multi_tensor_apply_kernel<FusedOptimizer>", "optimizer and gradient norm"),
        ("void at::native::elementwise_kernel<128, 4, direct_copy_kernel_cuda>", "copies and fills"),
        ("void at::native::reduce_kernel<512, 1>", "torch's own elementwise kernels and reductions"),
        ("something else", "other"),
    ],
)
def test_kinds(name, kind):
    assert kind_of_kernel(name) == kind
