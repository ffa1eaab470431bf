import { useRef, useState } from 'react';
import { placeOrder } from './api.js';
import { lines, price, total } from './basket.js';
import { Stepper } from './Catalogue.jsx';

const METHODS = [
  ['card-pays', 'Test card that pays'],
  ['card-declined', 'Test card that is declined'],
];

export function Basket({ products, basket, onChoose, onPlaced }) {
  const [customer, setCustomer] = useState('Ada');
  const [method, setMethod] = useState(METHODS[0][0]);
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState(null);
  const key = useRef(null);
  const chosen = lines(basket, products);
  const sum = total(chosen);

  async function submit(event) {
    event.preventDefault();
    setBusy(true);
    setTrouble(null);
    const items = chosen.map(({ product, quantity }) => ({ product: product.id, quantity }));
    const body = { customer, method, items };
    // The same order sent twice bears the same key; a changed one a new key.
    const text = JSON.stringify(body);
    if (key.current?.text !== text) key.current = { text, value: newKey() };
    try {
      onPlaced(await placeOrder(body, key.current.value));
      key.current = null;
    } catch (error) {
      setTrouble(error);
    } finally {
      setBusy(false);
    }
  }

  return (
    <aside id="basket" className="basket" aria-labelledby="basket-title" tabIndex={-1}>
      <h2 id="basket-title">Your basket</h2>
      {chosen.length === 0 ? (
        <p className="empty">Nothing loaded yet.</p>
      ) : (
        <ul>
          {chosen.map(({ product, quantity, cents }) => (
            <li key={product.id}>
              <span className="name">{product.name}</span>
              <Stepper product={product} quantity={quantity} onChoose={onChoose} />
              <span className="cents">{price(cents)}</span>
            </li>
          ))}
        </ul>
      )}
      <p className="sum">
        <span>Total</span>
        <b>{price(sum)}</b>
      </p>
      <form onSubmit={submit}>
        <label>
          Name
          <input
            value={customer}
            onChange={(event) => setCustomer(event.target.value)}
            required
            maxLength={80}
            autoComplete="given-name"
            aria-invalid={Boolean(trouble?.fields.customer)}
          />
        </label>
        <fieldset>
          <legend>Payment</legend>
          {METHODS.map(([value, label]) => (
            <label key={value} className="choice">
              <input type="radio" name="method" value={value} checked={method === value} onChange={() => setMethod(value)} />
              {label}
            </label>
          ))}
        </fieldset>
        {trouble && (
          <p className="trouble" role="alert">
            {[trouble.message, ...Object.values(trouble.fields)].join(': ')}
          </p>
        )}
        <button className="place" disabled={busy || chosen.length === 0}>
          {busy ? 'Placing…' : `Place order${sum ? ` for ${price(sum)}` : ''}`}
        </button>
      </form>
    </aside>
  );
}

/** crypto.randomUUID exists only on pages from https or localhost; a load-balancer address on http is neither. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
