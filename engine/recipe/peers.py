"""What others call what a recipe says: tables for hints, never aliases.

Most are keys of LLaMA-Factory, Axolotl, ms-swift, Oumi, TRL, transformers and NeMo Automodel; the
rest is what a person would try.
"""

from __future__ import annotations

# Our key -> what others call it. A deep key of ours may stand here, too: it is often put elsewhere.
_CALLED: dict[str, str] = {
    "name": "run_name exp_name experiment_name project_name job_name",
    "seed": "data_seed random_seed train_seed",
    "source": "dataset datasets data dataset_name data_files train_file train_dataset data_path "
    "dataset_path train_datasets dataset_mixture",
    "filters": "filter process dataset_filters",
    "mix.pipeline": "training_stages train_stages",
    "mix.order": "mix_strategy mixture_strategy interleave_strategy shuffle shuffle_dataset "
    "dataset_shuffle train_dataloader_shuffle disable_shuffling shuffle_merged_datasets",
    "mix.parts": "interleave_probs interleave_prob mixture_proportion mixture_ratio "
    "dataset_weights data_weights mixing_ratios mix_ratio",
    "mix.replay": "replay_data replay_dataset rehearsal general_data",
    "base.model": "model model_name_or_path pretrained_model_name_or_path base_model model_name "
    "model_id model_path base_model_name model_id_or_path",
    "base.revision": "model_revision revision_of_model",
    "base.weights": "train_from_scratch random_init_weights reinit_weights from_scratch",
    "base.method": "finetuning_type finetune_type adapter tuner_type train_type use_peft "
    "use_lora q_lora qlora full_finetuning sft_type peft_type peft_method tuner",
    "base.lora": "peft peft_config lora_config lora_args",
    "base.lora.rank": "rank lora_rank lora_r r dim lora_dim lora_ranks",
    "base.lora.alpha": "alpha lora_alpha lora_alphas",
    "base.lora.dropout": "dropout lora_dropout lora_dropout_p",
    "base.lora.targets": "targets target lora_target lora_targets lora_target_modules "
    "target_modules lora_target_linear exclude_modules",
    "base.train": "freeze freeze_config freeze_vision_tower freeze_multi_modal_projector "
    "freeze_language_model freeze_mm_modules freeze_vit freeze_aligner freeze_llm freeze_layers "
    "freeze_vision_model freeze_embeddings freeze_parameters trainable_parameters "
    "unfrozen_parameters trainable_modules modules_to_save freeze_trainable_layers "
    "freeze_vision freeze_projector freeze_vision_encoder train_mm_proj_only "
    "tune_mm_mlp_adapter",
    "base.backend": "inference_engine infer_backend infer_engine",
    "training": "train training_args training_arguments trainer hyperparameters "
    "train_args training_params",
    "training.learning_rate": "lr max_lr peak_lr base_learning_rate",
    "training.vision_learning_rate": "vision_lr vit_lr vision_tower_lr mm_vision_tower_lr",
    "training.num_train_epochs": "num_epochs epochs epoch "
    "num_training_epochs max_epochs train_epochs",
    "training.max_steps": "num_steps train_steps max_train_steps num_train_steps "
    "train_iters total_steps",
    "training.global_batch_size": "batch_size train_batch_size "
    "total_train_batch_size effective_batch_size total_batch_size",
    "training.per_device_train_batch_size": "micro_batch_size "
    "local_batch_size per_gpu_train_batch_size per_device_batch_size train_micro_batch_size "
    "micro_train_batch_size train_micro_batch_size_per_gpu device_batch_size",
    "training.max_length": "cutoff_len sequence_len model_max_length max_seq_length "
    "max_seq_len seq_length seq_len sequence_length max_sequence_length context_length "
    "block_size max_source_length max_tokens max_len cutoff_length",
    "training.lr_scheduler_type": "lr_scheduler scheduler lr_schedule "
    "lr_decay_style scheduler_type",
    "training.warmup_ratio": "warmup_steps warmup lr_warmup_steps num_warmup_steps "
    "lr_warmup_ratio warmup_fraction lr_warmup_fraction warmup_proportion",
    "training.weight_decay": "wd",
    "training.adam_beta1": "beta1 betas",
    "training.adam_beta2": "beta2",
    "training.max_grad_norm": "gradient_clipping clip_grad gradient_clip_val "
    "grad_clip clip_grad_norm gradient_clip",
    "training.precision": "bf16 fp16 bfloat16 float16 mixed_precision "
    "mixed_precision_dtype fp32 pure_bf16 torch_dtype dtype tf32 float32 "
    "model_dtype",
    "training.gradient_checkpointing": "enable_gradient_checkpointing "
    "use_gradient_checkpointing activation_checkpointing disable_gradient_checkpointing "
    "vit_gradient_checkpointing recompute_granularity enable_activation_checkpointing",
    "training.save_steps": "save_interval checkpointing_steps save_strategy "
    "saves_per_epoch checkpoint_interval",
    "training.logging_steps": "log_every log_interval log_steps logging_strategy log_every_n_steps",
    "benchmarks": "eval_dataset eval_datasets evaluation eval evaluate test_datasets "
    "validation_dataset val_dataset evaluations eval_data benchmark test_dataset",
    "benchmarks.domain": "tasks eval_tasks",
    "benchmarks.scorer": "metrics metric eval_metric compute_metrics",
    "benchmarks.max_items": "limit max_eval_samples eval_limit max_samples_eval",
    "matrix": "sweep grid grid_search hparams_search variants experiments foreach",
    "generator": "synthesizer synthesis synthetic_data synthesize",
    "generator.prompt": "synthesis_prompt generation_prompt",
    "generator.tune": "finetune",
}

OURS = {theirs: ours for ours, names in _CALLED.items() for theirs in names.split()}

# What others call a key of whatever section it is written in: a source, a backend, a judge.
NEAR: dict[str, str] = {
    "model": "model_name_or_path pretrained_model_name_or_path base_model model_name model_id "
    "model_path model_id_or_path judge_model",
    "revision": "model_revision revision_of_model dataset_revision commit ref",
    "backend": "inference_engine infer_backend infer_engine engine",
    "use": "type kind class _target_ class_path plugin plug_in loader format ds_type",
    "path": "dataset dataset_name data_files data_file file file_name filename files data_path "
    "data_dir folder dir train_file dataset_path directory location local_path root",
    "dataset": "dataset_name path repo repo_id hf_hub_url name_or_path hub_id data dataset_id "
    "ms_hub_url hf_dataset",
    "config": "subset name config_name dataset_config dataset_config_name subset_name "
    "configuration",
    "split": "dataset_split train_split splits subset_split",
    "columns": "column_mapping field_mapping field_map column_map rename_columns fields mapping "
    "image_column text_column caption_column features column_names",
    "image_root": "image_folder image_dir media_dir images_dir image_path image_base_path "
    "media_root images images_folder",
    "captions": "caption_file captions_file metadata annotation annotations annotation_file",
    "licence": "license license_name",
    "task": "task_type dataset_type formatting data_type conversation_format",
    "num_rows": "max_samples num_samples max_train_samples sample_size samples limit",
    "world": "environment scene domain",
    "share": "val_size val_set_size test_size ratio fraction split_dataset_ratio",
    "max_items": "limit max_samples max_eval_samples num_items",
    "prompt": "template prompt_template judge_prompt prompt_name",
    "judge": "judge_model model model_name grader critic",
    "max_new_tokens": "max_tokens max_output_tokens max_completion_tokens num_tokens "
    "max_generated_tokens",
    "min_words": "min_len min_length min_num min_tokens",
    "max_words": "max_len max_length max_num max_tokens",
    "min_side_px": "min_side min_size min_width min_height min_pixels min_resolution",
    "max_aspect_ratio": "max_ratio aspect_ratio max_aspect",
    "max_distance_bits": "max_distance hamming_distance distance threshold hash_distance "
    "max_hamming_distance",
    "max_ratio": "max_repetition ratio threshold max_rep_ratio",
    "max_model_len": "max_length max_seq_len max_model_length context_length max_seq_length "
    "model_max_length",
    "max_images": "limit_mm_per_prompt max_num_images images_per_prompt",
    "max_num_seqs": "batch_size max_batch_size num_seqs max_num_sequences",
    "gpu_memory_utilization": "gpu_memory gpu_memory_fraction mem_fraction_static",
    "tensor_parallel_size": "tensor_parallel tp tp_size num_gpus",
    "batch_size": "max_batch_size per_device_eval_batch_size eval_batch_size num_seqs",
    "dtype": "torch_dtype precision bf16 fp16 infer_dtype vllm_dtype",
}

_MACHINE = "it is a fact of the machine, not of the experiment"
_STORE = "results go to the store: `--store` or ADAPT_STORE"
_TEMPLATE = "the chat template comes with the model"
QUANTISED = "weights are not quantised in training; `base.method: lora` needs the least memory"
LORA_KIND = "plain low-rank adapters are the only kind here: `base.lora`"
_IMAGES = "images are sized by the processor that comes with the model; there is no key for it"
_PACKING = "rows are not packed; there is no key for it"
_KERNEL = "the engine chooses the kernels that the hardware has"
_TRACKER = "runs are recorded in the store: `adapt status` and `adapt report` show them"
_PARENT = "a recipe has one parent, named with `extends`"
_USE = "a plug-in is chosen with `use`"
_RESUME = "a run that was stopped goes on when it is started again"
_HUB = "nothing is uploaded from a recipe"
_CACHE = "whatever is not changed is taken from the store; there is no cache to steer"
_STAGES = "a run goes through all stages; what it does follows from the recipe"
_HELD_OUT = "score on pairs held out from training: `benchmarks: {domain: [holdout]}`"
_EVAL = "benchmarks run once, after training; name them under `benchmarks`"
_OPTIM = "it is AdamW: `adam_beta1`, `adam_beta2` and `weight_decay` of `training`"
_LOSS = "the loss is that of the answers' tokens"
_KEEPS = "the last checkpoint is kept"
_PEERS_ONLY = "there is nothing like it here; remove the line"

# Where a fact lives that is no key of a recipe.
_LIVES: dict[str, str] = {
    "it follows from `global_batch_size` and the devices": "gradient_accumulation_steps "
    "gradient_accumulation grad_accum accumulate_grad_batches grad_accum_steps",
    _TEMPLATE: "template chat_template chat_template_path chat_template_jinja system "
    "default_system system_prompt tokenizer tokenizer_name tokenizer_type processor_kwargs "
    "tokenizer_name_or_path processor processor_type special_tokens resize_vocab "
    "use_fast_tokenizer add_special_tokens image_token",
    _STORE: "output_dir checkpoint_dir logging_dir save_dir out_dir results_dir "
    "overwrite_output_dir dataset_prepared_path add_version export_dir log_dir work_dir",
    _MACHINE: "deepspeed fsdp fsdp_config dataloader_num_workers num_workers ddp_timeout "
    "ddp_backend num_proc preprocessing_num_workers dataset_num_proc device device_map devices "
    "num_gpus num_nodes nnodes nproc_per_node local_rank world_size accelerator strategy "
    "cache_dir hf_token use_auth_token hub_token hf_hub_token token low_cpu_mem_usage "
    "dataset_processes dataloader_pin_memory dataloader_prefetch_factor threads "
    "use_cpu no_cuda gpus cuda_visible_devices tensor_model_parallel_size dp_size tp_size "
    "ddp_find_unused_parameters offload_folder save_only_model distributed use_ray",
    "it is a fact of the machine: `--executor` or ADAPT_EXECUTOR": "executor",
    "it is a fact of the machine: `--store` or ADAPT_STORE": "store",
    _TRACKER: "report_to wandb wandb_project wandb_entity wandb_watch wandb_name wandb_run_id "
    "wandb_log_model use_wandb enable_wandb enable_tensorboard enable_mlflow use_mlflow "
    "mlflow_tracking_uri mlflow_experiment_name use_comet comet_project_name swanlab_project "
    "use_swanlab use_tensorboard tensorboard_dir trackers log_with plot_loss "
    "include_num_input_tokens_seen include_tokens_per_second disable_tqdm",
    QUANTISED: "load_in_4bit load_in_8bit quantization_bit quantization_method quant_bits "
    "quant_method bnb_4bit_quant_type bnb_4bit_compute_dtype bnb_4bit_use_double_quant "
    "quantization double_quantization quantization_config use_qlora "
    "quantization_type bnb_config use_bnb gptq gptq_bits",
    LORA_KIND: "use_dora use_rslora use_rs_lora peft_use_dora peft_use_rslora loraplus_lr_ratio "
    "pissa_init lora_bias init_lora_weights init_weights lora_init_weights lora_dtype "
    "lora_fan_in_fan_out lora_modules_to_save lora_target_parameters additional_target "
    "create_new_adapter use_galore use_badam use_apollo lora_plus_lr_ratio",
    _IMAGES: "image_max_pixels image_min_pixels max_pixels min_pixels image_size image_resolution "
    "resize image_resize_algorithm video_max_pixels video_fps video_maxlen image_processor "
    "image_ size_factor max_image_size processor_max_pixels crop_to_patches",
    _PACKING: "packing neat_packing sample_packing packing_length pack eval_sample_packing "
    "packed_sequence pad_to_sequence_len padding_free group_by_length train_on_padding "
    "sample_packing_bin_size pad_to_multiple_of dataset_packing multipack_real_batches "
    "sample_packing_eff_est",
    _KERNEL: "flash_attn flash_attention attn_implementation attn_impl use_flash_attention "
    "use_flash_attn sdp_attention xformers_attention enable_liger_kernel use_liger "
    "use_liger_kernel use_unsloth use_unsloth_gc torch_compile compile unsloth shift_attn "
    "sdpa_attention flex_attention eager_attention attention_implementation",
    _PARENT: "defaults base_recipe base_config parent parents inherit include imports _base_",
    _USE: "type _target_ class_path",
    _RESUME: "resume_from_checkpoint resume auto_resume_from_checkpoints resume_only_model "
    "ignore_data_skip try_resume_from_last_checkpoint",
    _HUB: "push_to_hub hub_model_id hub_private_repo hub_strategy hub_repo export_hub_model_id "
    "hub_organization push_dataset_to_hub",
    _CACHE: "overwrite_cache tokenized_path load_from_cache_file use_cache streaming "
    "buffer_size lazy_tokenize cached_dataset max_streaming_samples dataset_exact_deduplication",
    _STAGES: "do_train do_eval do_predict do_sample stage rlhf_type training_type trainer_type "
    "rl task_stage mode phase stages train_stage",
    _HELD_OUT: "val_size val_set_size split_dataset_ratio test_size validation_split eval_size "
    "eval_split_ratio test_ratio",
    _EVAL: "eval_steps eval_strategy evaluation_strategy evals_per_epoch "
    "per_device_eval_batch_size eval_on_start load_best_model_at_end metric_for_best_model "
    "greater_is_better eval_batch_size predict_with_generate early_stopping_patience "
    "do_bench_eval eval_on_each_dataset early_stopping_steps "
    "eval_accumulation_steps eval_table_size eval_max_new_tokens",
    _OPTIM: "optim optimizer adam_epsilon optim_args adamw optimizers optimizer_name use_adamw "
    "weight_decay_type optim_target_modules adam_eps eps",
    _LOSS: "train_on_inputs train_on_prompt mask_history loss_scale label_smoothing_factor "
    "neftune_noise_alpha completion_only_loss assistant_only_loss use_dft_loss loss_type "
    "train_on_input ignore_pad_token_for_loss collator_name data_collator",
    _KEEPS: "save_total_limit keep_last_n_checkpoints save_safetensors save_first_step "
    "save_last save_final_model max_checkpoints save_epoch",
    _PEERS_ONLY: "rope_scaling remove_unused_columns dataset_dir dataset_info "
    "length_column_name ddp_broadcast_buffers remove_instance_columns dataset_text_field",
}

ELSEWHERE = {theirs: said for said, names in _LIVES.items() for theirs in names.split()}

# What is near, but not the same: renaming alone would be wrong.
_DIFFERS: dict[str, str] = {
    "base.train": "it lists the parts that learn, of `vision`, `projector` and `language`",
    "base.weights": "`random` or `pretrained`",
    "base.lora.targets": "a list of what gets adapters",
    "mix.order": "`random` or `sequential`",
    "mix.parts": "how much of `synthetic`, `captions` and `replay` enters",
    "training.precision": "`auto`, `float32` or `bfloat16`",
    "training.gradient_checkpointing": "true or false",
}

_DIFFERENT: dict[str, str] = {
    "a share of all steps": "warmup_steps lr_warmup_steps num_warmup_steps warmup",
    "`full` or `lora`": "use_peft use_lora adapter q_lora qlora full_finetuning",
    "the rows of one step on all devices": "batch_size train_batch_size",
    "a number of steps": "save_strategy saves_per_epoch logging_strategy",
}

DIFFERS = {
    **{theirs: said for ours, said in _DIFFERS.items() for theirs in _CALLED[ours].split()},
    **{theirs: said for said, names in _DIFFERENT.items() for theirs in names.split()},
}
