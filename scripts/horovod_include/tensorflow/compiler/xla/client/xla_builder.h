// Horovod 0.28.1 includes XLA's builder by its place in TensorFlow <= 2.15.
// This header forwards to the builder's place in TensorFlow 2.21.
#include "xla/hlo/builder/xla_builder.h"
