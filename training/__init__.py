"""Makes what `triton_models/` serves: phantom, network, fit, evaluation, export. No room imports it."""
