// As in ../scripts.py.

import { z } from "zod";

const code = z.enum(["FR", "IT"]);

export const City = z.object({
  name: z.string(),
  country: z.object({ name: z.string(), code }),
  population: z.number().int().nullable(),
  districts: z.array(z.string()),
});

export const Weather = z.object({
  place: z.object({ city: z.string(), country: code }),
  days: z.number().int().nullable(),
});

export const forecasts = { Paris: "sunny, 21 °C", Rome: "rain" };
