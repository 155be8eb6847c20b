/* plot.c - see plot.h. */
#include <tests/bench/plot.h>

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

enum { WIDE = 260, HIGH = 170, LEFT = 64, TOP = 44, GAP = 24, BELOW = 46, IN_A_ROW = 3 };
#define FLAT 0.8

/* 1, 2 or 5 times a power of ten, so that at most six lines are drawn. */
static double tick_of(double most)
{
    double tick = pow(10, floor(log10(most / 5)));

    return most / tick <= 6 ? tick : most / tick <= 12 ? 2 * tick : 5 * tick;
}

static const char *short_number(double n, char text[16])
{
    if (n >= 1e6)
        snprintf(text, 16, "%gM", n / 1e6);
    else if (n >= 1e3)
        snprintf(text, 16, "%gk", n / 1e3);
    else
        snprintf(text, 16, "%g", n);
    return text;
}

static double best_of(const struct plot *plot)
{
    double best = 0;

    for (size_t i = 0; i < plot->n_points; i++)
        best = plot->points[i].rate > best ? plot->points[i].rate : best;
    return best;
}

static void axis_up(FILE *file, double most, bool named)
{
    char text[16];

    for (double tick = tick_of(most), at = 0; at <= most; at += tick) {
        double y = HIGH * (1 - at / most);

        fprintf(file, "<path d='M0 %.1fh%d' stroke='#ddd'/>\n", y, WIDE);
        if (named)
            fprintf(file, "<text x='-6' y='%.1f' text-anchor='end'>%s</text>\n", y + 4,
                    short_number(at, text));
    }
}

static void curve(FILE *file, const struct plot *plot, double most)
{
    double first = log10(plot->points[0].n);
    double decades = fmax(log10(plot->points[plot->n_points - 1].n) - first, 1);
    double best = best_of(plot);
    char text[16];

    fprintf(file, "<rect y='%.1f' width='%d' height='%.1f' fill='#2a7' opacity='.12'/>\n",
            HIGH * (1 - best / most), WIDE, HIGH * best * (1 - FLAT) / most);
    fprintf(file, "<polyline fill='none' stroke='#174' stroke-width='2' points='");
    for (size_t i = 0; i < plot->n_points; i++)
        fprintf(file, "%.1f,%.1f ", WIDE * (log10(plot->points[i].n) - first) / decades,
                HIGH * (1 - plot->points[i].rate / most));
    fprintf(file, "'/>\n");
    for (size_t i = 0; i < plot->n_points; i++) {
        double x = WIDE * (log10(plot->points[i].n) - first) / decades;

        fprintf(file,
                "<circle cx='%.1f' cy='%.1f' r='3' fill='#174'/>"
                "<text x='%.1f' y='%d' text-anchor='middle'>%s</text>\n",
                x, HIGH * (1 - plot->points[i].rate / most), x, HIGH + 16,
                short_number(plot->points[i].n, text));
    }
    fprintf(file, "<text x='%d' y='%d' text-anchor='middle'>%s</text>\n", WIDE / 2, HIGH + 36,
            plot->axis);
}

int plot_write(const char *path, const char *title, const struct plot *plots, size_t n_plots)
{
    FILE *file = fopen(path, "we");
    int columns = n_plots < IN_A_ROW ? (int)n_plots : IN_A_ROW;
    int rows = ((int)n_plots + IN_A_ROW - 1) / IN_A_ROW;
    int width = LEFT + columns * (WIDE + GAP), height = TOP + rows * (HIGH + BELOW);
    double most = 0;

    if (!file)
        return -errno;
    for (size_t i = 0; i < n_plots; i++)
        most = fmax(most, 1.1 * best_of(&plots[i]));
    fprintf(file,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' "
            "font-family='sans-serif' font-size='12' fill='#333'>\n"
            "<rect width='%d' height='%d' fill='white'/>\n"
            "<text x='%d' y='22' font-size='14'>%s</text>\n",
            width, height, width, height, LEFT, title);
    for (size_t i = 0; i < n_plots && plots[i].n_points > 0; i++) {
        fprintf(file, "<g transform='translate(%d %d)'>\n", LEFT + (int)i % IN_A_ROW * (WIDE + GAP),
                TOP + (int)i / IN_A_ROW * (HIGH + BELOW));
        axis_up(file, most, i % IN_A_ROW == 0);
        curve(file, &plots[i], most);
        fprintf(file, "</g>\n");
    }
    fprintf(file, "</svg>\n");
    bool failed = ferror(file);

    return fclose(file) != 0 || failed ? -EIO : 0;
}
