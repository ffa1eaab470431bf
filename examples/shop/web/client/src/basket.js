// The basket: product id → quantity. Pure; the page keeps one in its state.

export const MAX_QUANTITY = 20;

/** Sets a quantity, within what is in stock; 0 takes the product out. */
export function put(basket, product, quantity) {
  const { [product.id]: _, ...others } = basket;
  const wanted = Math.max(0, Math.min(quantity, product.stock, MAX_QUANTITY));
  return wanted === 0 ? others : { ...others, [product.id]: wanted };
}

/** The basket's lines in the catalogue's order. A product that the catalogue no longer has is left out. */
export function lines(basket, products) {
  return products
    .filter((product) => basket[product.id] > 0)
    .map((product) => ({ product, quantity: basket[product.id], cents: basket[product.id] * product.priceCents }));
}

export const total = (lines) => lines.reduce((sum, line) => sum + line.cents, 0);

export const count = (basket) => Object.values(basket).reduce((sum, quantity) => sum + quantity, 0);

const euros = new Intl.NumberFormat('en-IE', { style: 'currency', currency: 'EUR' });

/** Cents as a price: 1250 → "€12.50". */
export const price = (cents) => euros.format(cents / 100);
