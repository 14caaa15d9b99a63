// One AdamW update's numbers, worked out once for all parameters.
#pragma once

namespace seer {

/// With g the gradient: m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and the parameter falls
/// by rate * m / (sqrt(v * v_share) + epsilon). rate and v_share hold the corrections of the moments' bias.
struct AdamFactors {
  float beta1 = 0;
  float beta2 = 0;
  float epsilon = 0;
  float rate = 0;
  float v_share = 0;
};

}  // namespace seer
