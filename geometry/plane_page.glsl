#version 300 es
precision highp float;
precision highp sampler2DArray;

uniform sampler2DArray colors, alphas;
uniform vec2 canvas, size;            // of the canvas and of the planes, pixels
uniform vec2 focal, center;           // of the reference camera, pixels of the planes
uniform vec3 camera;                  // where we stand, in the reference camera's axes
uniform float pivot, zoom;            // the inverse depth that stays in place; magnification
uniform float disparity[PLANES];      // inverse depths, far to near
out vec4 seen;

// Along the ray of one pixel, from the nearest plane to the farthest, until nothing shines through.
void main() {
  vec2 pixel = vec2(gl_FragCoord.x, canvas.y - gl_FragCoord.y) / canvas * size;
  vec2 ray = (pixel - center) / (focal * zoom) - camera.xy * pivot / (1.0 - camera.z * pivot);
  vec3 color = vec3(0.0);
  float through = 1.0;
  for (int k = PLANES - 1; k >= 0 && through > 0.001; k--) {
    float ahead = 1.0 - camera.z * disparity[k];
    if (ahead <= 0.0) continue;       // the plane is behind us
    vec2 at = center + focal * (camera.xy * disparity[k] + ray * ahead);
    vec2 edge = clamp(at + 0.5, 0.0, 1.0) * clamp(size + 0.5 - at, 0.0, 1.0);
    float inside = BACKDROP && k == 0 ? 1.0 : edge.x * edge.y;
    vec3 texel = vec3(at / size, k);
    float alpha = inside * textureLod(alphas, texel, 0.0).r;
    vec3 layer = inside * textureLod(colors, texel, 0.0).rgb;
    color += through * (PREMULTIPLIED ? layer : alpha * layer);
    through *= 1.0 - alpha;
  }
  seen = vec4(color, 1.0);
}
