"""Panels of SVG figures; shared by the scripts beside it that draw."""


def document(width, height, parts):
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
            f'font-size="13">')
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


class Panel:
    """A plot whose left upper corner is (x0, top). `across` and `up` take a value to its share of width and height."""

    def __init__(self, x0, top, width, height, across, up):
        self.x0, self.top, self.width, self.height, self.across, self.up = x0, top, width, height, across, up
        self.parts = []

    def x(self, value):
        return self.x0 + self.across(value) * self.width

    def y(self, value):
        return self.top + self.height - self.up(value) * self.height

    def frame(self, title):
        self.parts += [f'<text x="{self.x0}" y="{self.top - 18}" font-size="15">{title}</text>',
                       f'<path d="M{self.x0},{self.top}V{self.top + self.height}H{self.x0 + self.width}" fill="none" '
                       f'stroke="black"/>']

    def x_tick(self, value, label):
        self.parts.append(f'<text x="{self.x(value):.1f}" y="{self.top + self.height + 18}" '
                          f'text-anchor="middle">{label}</text>')

    def y_tick(self, value, label):
        self.parts.append(f'<path d="M{self.x0},{self.y(value):.1f}H{self.x0 + self.width}" stroke="#ddd"/>'
                          f'<text x="{self.x0 - 8}" y="{self.y(value) + 4:.1f}" text-anchor="end">{label}</text>')

    def x_label(self, label):
        self.parts.append(f'<text x="{self.x0 + self.width / 2}" y="{self.top + self.height + 38}" '
                          f'text-anchor="middle">{label}</text>')

    def line(self, points, style):
        joined = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        self.parts.append(f'<polyline points="{joined}" fill="none" {style}/>')

    def dots(self, points, colour):
        self.parts += [f'<circle cx="{self.x(a):.1f}" cy="{self.y(b):.1f}" r="3" fill="{colour}"/>' for a, b in points]


def legend_entry(x, y, style, label):
    return f'<path d="M{x},{y - 4}h24" {style}/><text x="{x + 30}" y="{y}">{label}</text>'
