// lighthouse.pov - a lighthouse in the last light of the west. Its two beams make half a turn in the
// animation, so that the last frame leads to the first. Renders well under two seconds a frame.
//
//   povray lighthouse.pov +KFI1 +KFF24 +W480 +H270
#version 3.7;
#include "tower.inc"

global_settings { assumed_gamma 1.0 max_trace_level 6 }

// 0 to just under 1. POV-Ray's clock would show the first frame twice in a loop.
#declare Turn = (frame_number - initial_frame) / max(final_frame - initial_frame + 1, 1);

camera {
  location <7.5, 2.6, -19>
  look_at <4.2, 5.0, 0>
  angle 58
  right x * image_width / image_height
}

// ---- sky: dusk below, night above, stars that twinkle slowly --------------------------------

sky_sphere {
  pigment {
    gradient y
    color_map {
      [0.00 rgb <1.00, 0.42, 0.12>]
      [0.05 rgb <0.66, 0.22, 0.15>]
      [0.16 rgb <0.20, 0.10, 0.21>]
      [0.36 rgb <0.025, 0.038, 0.12>]
      [1.00 rgb <0.005, 0.010, 0.045>]
    }
  }
}

#declare Chance = seed(7420);
#declare Star = 0;
#while (Star < 260)
  #declare Azimuth = (rand(Chance) - 0.5) * 110;
  #declare Height = 9 + 40 * rand(Chance);
  #declare Size = 0.18 + 0.42 * pow(rand(Chance), 3);
  #declare Phase = rand(Chance);
  #declare Light = (0.55 + 0.45 * sin(2 * pi * (Turn + Phase))) * min((Height - 6) / 22, 1);
  sphere {
    z * 400, Size
    rotate x * -Height
    rotate y * Azimuth
    pigment { rgb 1 }
    finish { ambient 0 diffuse 0 emission 0.35 + 1.1 * Light }
    no_shadow
    no_reflection
  }
  #declare Star = Star + 1;
#end

// A thin moon: one disc less another.
difference {
  sphere { 0, 9 }
  sphere { <4.2, 2.6, -6>, 9.4 }
  translate <150, 118, 330>
  pigment { rgb <1, 0.96, 0.86> }
  finish { ambient 0 diffuse 0 emission 1.2 }
  no_shadow
}

// ---- light: what the west still gives, and a little of the night ----------------------------

light_source { <-120, 35, 160> rgb <1.0, 0.42, 0.18> * 0.9 }
light_source { <-40, 60, -120> rgb <0.22, 0.26, 0.42> shadowless }
light_source { y * LampHeight rgb <1.0, 0.85, 0.55> * 0.35 fade_distance 4 fade_power 2 }

// ---- sea and rock -----------------------------------------------------------------------------

plane {
  y, 0
  pigment { rgb <0.012, 0.030, 0.055> }
  normal {
    average
    normal_map {
      [1.0 waves 0.35 scale <1.6, 1, 0.7> phase Turn]
      [1.0 ripples 0.45 scale <0.8, 1, 0.35> turbulence 0.3 phase Turn]
      [0.7 bumps 0.55 scale <3.2, 1, 0.8> translate <0.3, 0, 0.1>]
    }
  }
  finish { ambient 0 diffuse 0.25 specular 0.5 roughness 0.02 reflection { 0.10, 0.85 fresnel on } }
  interior { ior 1.33 }
}

#declare Stone = texture {
  pigment {
    granite
    color_map { [0 rgb <0.055, 0.050, 0.055>] [0.6 rgb <0.13, 0.11, 0.11>] [1 rgb <0.24, 0.20, 0.18>] }
    scale 1.4
  }
  normal { wrinkles 1.1 scale 0.5 }
  finish { ambient 0.05 diffuse 0.8 specular 0.1 }
}

#declare Rocks = union {
  sphere { 0, 1 scale <3.4, 1.5, 2.6> translate <0, -0.2, 0> }
  #declare Rock = 0;
  #while (Rock < 34)
    #declare Bearing = 360 * rand(Chance);
    #declare Reach = 2.0 + 2.6 * rand(Chance);
    #declare Width = 0.35 + 0.75 * rand(Chance);
    superellipsoid {
      <0.55, 0.6>
      scale <Width, Width * (0.5 + 0.7 * rand(Chance)), Width * (0.7 + 0.5 * rand(Chance))>
      rotate <30 * rand(Chance), 360 * rand(Chance), 30 * rand(Chance)>
      translate <Reach, 0.55 - 0.16 * Reach, 0>
      rotate y * Bearing
    }
    #declare Rock = Rock + 1;
  #end
  texture { Stone }
}

object { Rocks }
object { Tower translate y * 1.2 }

// A small boat on its way home, rocking.
union {
  intersection {
    sphere { 0, 1 scale <1.2, 0.42, 0.36> }
    plane { y, 0.05 }
    texture { Red }
  }
  cylinder { 0, y * 1.5, 0.03 texture { Iron } }
  triangle { <0.06, 0.25, 0>, <0.06, 1.45, 0>, <0.85, 0.3, 0> pigment { rgb <0.85, 0.78, 0.66> } finish { ambient 0.15 diffuse 0.7 } }
  sphere { y * 1.52, 0.06 pigment { rgb <1, 0.8, 0.4> } finish { ambient 0 emission 1.8 diffuse 0 } no_shadow }
  rotate z * 5 * sin(2 * pi * Turn)
  rotate y * 25
  translate <9.6, 0.10 + 0.06 * cos(2 * pi * Turn), -1.5>
}

// ---- the beams: cones of pale light that fade along their length -----------------------------

#declare Reach = 60;
#declare Beam = union {
  #declare Shell = 0;
  #while (Shell < 5)
    cone {
      0, 0.16, z * Reach, 0.9 + 0.8 * Shell open
      pigment {
        gradient z
        color_map {
          [0.00 rgbt <1.0, 0.90, 0.62, 0.86>]
          [0.25 rgbt <1.0, 0.88, 0.62, 0.955>]
          [1.00 rgbt <1.0, 0.85, 0.60, 1.00>]
        }
        scale Reach * 1.0001
      }
      finish { ambient 0 diffuse 0 emission 0.9 }
      no_shadow
    }
    #declare Shell = Shell + 1;
  #end
}

union {
  object { Beam }
  object { Beam rotate y * 180 }
  rotate x * -1.5
  rotate y * (35 + 180 * Turn)
  translate y * (LampHeight + 1.2)
}
